package index

import (
	"bytes"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
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

// FuzzScope is the same for scopes; the value is tried as the index's meta, too.
func FuzzScope(f *testing.F) {
	store := segment.ID{1, 2, 3}
	meta := append([]byte{format}, store[:]...)
	f.Add([]byte(metaKey), meta)
	f.Add(scopeKey(7), append(scope.Namespace[:], scope.Tenant[:]...))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		err := (&Index{opt: Options{Store: store}}).check(value)
		if k, ok := fault.KindOf(err); err == nil && !bytes.Equal(value, meta) || err != nil && (!ok || k != fault.Corrupt && k != fault.Invalid) {
			t.Fatalf("meta %x: %v", value, err)
		}
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
