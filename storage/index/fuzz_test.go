package index

import (
	"bytes"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
)

// FuzzEntry: whatever lies on the disk is an entry that encodes to the same
// bytes, or Corrupt.
func FuzzEntry(f *testing.F) {
	e := entry(3, 9)
	f.Add(entryKey(e.Location), e.appendTo(nil))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		e, err := decodeEntry(key, value)
		if err != nil {
			if !errors.Is(err, fault.Corrupt) {
				t.Fatalf("%v", err)
			}
			return
		}
		if !bytes.Equal(e.appendTo(nil), value) || !bytes.Equal(entryKey(e.Location)[1:], key[1:]) {
			t.Fatalf("%+v has another encoding", e)
		}
	})
}

// FuzzScope is the same for scopes.
func FuzzScope(f *testing.F) {
	f.Add(scopeKey(7), append(scope.Namespace[:], scope.Tenant[:]...))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		n, s, err := decodeScope(key, value)
		if err != nil {
			if !errors.Is(err, fault.Corrupt) {
				t.Fatalf("%v", err)
			}
			return
		}
		if !bytes.Equal(scopeKey(n)[1:], key[1:]) || !bytes.Equal(append(s.Namespace[:], s.Tenant[:]...), value) {
			t.Fatalf("%d, %+v has another encoding", n, s)
		}
	})
}
