package directory

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
)

// A hold keeps what is loaded, and the log says what was not.
func TestSkip(t *testing.T) {
	now := time.Unix(1e9, 0)
	l, log := &layered{}, NewLog(LogOptions{Skips: 3, Now: func() time.Time { return now }})
	d := New(Options{Arena: l, Below: lowerTier{l}, Clock: &clock{}, Log: log, HoldDefault: 1, HoldMax: 1, MaxHolds: 9})
	in := d.Join(InstanceKey{})
	prompt := func(n byte) (list []keys.Key, ks []byte) {
		for i, where := range []byte{inHost, inHost, inLower, inHost, inLower} {
			k := keys.Key{where, byte(i), n}
			list, ks = append(list, k), append(ks, k[:]...)
		}
		return list, ks
	}
	list, ks := prompt(0)
	m, err := d.Match(in, keys.Key{}, ks, 9, 0)
	require.NoError(t, err)
	require.Equal(t, 3, l.pins)
	loading, err := d.Hold(in, m.HoldID)
	require.NoError(t, err)

	s, err := d.Skip(in, m.HoldID, 2, list[2], 310*time.Millisecond, 120*time.Millisecond)
	require.NoError(t, err)
	want := Skip{Key: list[2], First: 2, Of: 5, Host: 1, Below: 2, Load: 310 * time.Millisecond, Compute: 120 * time.Millisecond, When: now}
	require.Equal(t, want, s)
	require.Equal(t, 3, s.Chunks())
	require.Equal(t, 2, l.pins)
	h, err := d.Hold(in, m.HoldID)
	require.NoError(t, err)
	require.Len(t, h.Refs, 2)
	require.Len(t, h.Keys, 2)
	require.Len(t, loading.Refs, 5, "a load under way has its own view")

	// What does not fit changes nothing.
	for _, first := range []int{2, 5, -1} {
		_, err = d.Skip(in, m.HoldID, first, list[2], 0, 0)
		require.ErrorIs(t, err, fault.Invalid)
	}
	_, err = d.Skip(in, m.HoldID+1, 0, list[0], 0, 0)
	require.ErrorIs(t, err, fault.Miss)
	require.Equal(t, 2, l.pins)

	// The whole of it, and its end, which is its deadline's too.
	_, err = d.Skip(in, m.HoldID, 0, list[0], 0, 0)
	require.NoError(t, err)
	require.Zero(t, l.pins)
	require.Equal(t, 1, d.Expire(2))
	require.Zero(t, l.pins)

	// The last one about a prompt is found, by its own keys only.
	found, ok := log.FindSkip(want.Scope, list)
	require.True(t, ok)
	require.Equal(t, 0, found.First)
	_, ok = log.FindSkip(want.Scope, list[1:])
	require.False(t, ok)
	other := want.Scope
	other.Tenant++
	_, ok = log.FindSkip(other, list)
	require.False(t, ok)

	// Three later ones take the places of both.
	for n := byte(1); n <= 3; n++ {
		list, ks := prompt(n)
		m, err := d.Match(in, keys.Key{}, ks, 9, 0)
		require.NoError(t, err)
		_, err = d.Skip(in, m.HoldID, 1, list[1], time.Duration(n), 0)
		require.NoError(t, err)
		d.End(in, []uint64{m.HoldID})
	}
	_, ok = log.FindSkip(want.Scope, list)
	require.False(t, ok)
	for n := byte(1); n <= 3; n++ {
		list, _ := prompt(n)
		found, ok := log.FindSkip(want.Scope, list)
		require.True(t, ok)
		require.EqualValues(t, n, found.Load)
	}
	require.Zero(t, l.pins)
}
