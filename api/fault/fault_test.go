package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/stretchr/testify/require"
)

var kinds = []fault.Kind{fault.Miss, fault.Busy, fault.Full, fault.Corrupt, fault.Unavailable, fault.Invalid, fault.Denied}

func TestKindsAreTheProtocols(t *testing.T) {
	require.Len(t, larderv1.ErrorKind_name, len(kinds)+1)
	for _, k := range kinds {
		require.True(t, k.Valid())
		name := larderv1.ErrorKind_name[int32(k)]
		require.Equal(t, name, "ERROR_KIND_"+upper(k.String()))
	}
	require.False(t, fault.Kind(0).Valid())
	require.False(t, fault.Kind(8).Valid())
	require.Equal(t, "kind(8)", fault.Kind(8).String())
}

func upper(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] -= 'a' - 'A'
	}
	return string(b)
}

func TestKindOf(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		ok   bool
	}{
		"nil":                  {nil, 0, false},
		"unknown":              {io.EOF, 0, false},
		"error":                {fault.New(fault.Full, "a", "b"), fault.Full, true},
		"kind itself":          {fault.Busy, fault.Busy, true},
		"wrapped by fmt":       {fmt.Errorf("x: %w", fault.New(fault.Denied, "", "b")), fault.Denied, true},
		"joined":               {errors.Join(io.EOF, fault.New(fault.Corrupt, "", "b")), fault.Corrupt, true},
		"outermost kind wins":  {fault.Wrap(fault.Miss, fault.New(fault.Corrupt, "", "b"), "", "c"), fault.Miss, true},
		"cancelled":            {fmt.Errorf("x: %w", context.Canceled), fault.Unavailable, true},
		"deadline":             {context.DeadlineExceeded, fault.Unavailable, true},
		"kind over a deadline": {fault.Wrap(fault.Busy, context.DeadlineExceeded, "", "c"), fault.Busy, true},
	} {
		t.Run(name, func(t *testing.T) {
			k, ok := fault.KindOf(c.err)
			require.Equal(t, c.kind, k)
			require.Equal(t, c.ok, ok)
		})
	}
}

func TestIs(t *testing.T) {
	err := error(fault.New(fault.Full, "arena", "no slot"))
	require.ErrorIs(t, err, fault.Full)
	require.ErrorIs(t, fmt.Errorf("x: %w", err), fault.Full)
	require.ErrorIs(t, err, &fault.Error{Kind: fault.Full})
	require.NotErrorIs(t, err, fault.Busy)
	require.NotErrorIs(t, err, &fault.Error{Kind: fault.Busy})
	require.NotErrorIs(t, err, &fault.Error{Kind: fault.Full, Field: "other"})
	require.ErrorIs(t, fault.Wrap(fault.Corrupt, io.EOF, "", "x"), io.EOF)
}

func TestText(t *testing.T) {
	base := fault.New(fault.Invalid, "load.chunks", "too %s", "many")
	for want, e := range map[string]*fault.Error{
		"invalid: load.chunks: too many":                    base,
		"invalid: load.chunks: too many (value 7)":          base.With(7, nil),
		"invalid: load.chunks: too many (limit 5)":          base.With(nil, 5),
		"invalid: load.chunks: too many (value 7, limit 5)": base.With(7, 5),
		"corrupt: x: EOF":                                   fault.Wrap(fault.Corrupt, io.EOF, "", "x"),
		"miss":                                              {Kind: fault.Miss},
		"unavailable: a: b (value 1, limit 2): broken: EOF": fault.Wrap(fault.Unavailable, fmt.Errorf("broken: %w", io.EOF), "a", "b").With(1, 2),
	} {
		require.Equal(t, want, e.Error())
	}
	require.Empty(t, base.Value, "With changes a copy")
}
