// Package vectors_test makes and checks the known answers beside it. The JSON
// files bind every implementation: the Go packages through this test, the
// Python package through connector/python/tests, which is written from
// api/*.md and calls no Go. After a deliberate change of a format:
//
//	go test ./api/vectors -update
//
// and a new format version; a change of a vector alone is a broken cache.
package vectors_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the vectors instead of comparing with them")

// hexBytes is hex in JSON.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) {
	return []byte(hex.EncodeToString(h)), nil
}

// golden compares v with the file, or writes it.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	require.NoError(t, e.Encode(v))
	if *update {
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "the implementation no longer gives the answers in %s", file)
}

// invalidInput is an input that must be rejected.
type invalidInput struct {
	Name     string   `json:"name"`
	Encoding hexBytes `json:"encoding"`
	Kind     string   `json:"kind"`
	Field    string   `json:"field"`
}

// rejected fills in why an input was rejected.
func rejected(t *testing.T, name string, encoding []byte, err error) invalidInput {
	t.Helper()
	var e *fault.Error
	require.Truef(t, errors.As(err, &e), "%s: %v", name, err)
	return invalidInput{name, encoding, e.Kind.String(), e.Field}
}
