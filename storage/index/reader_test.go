package index

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/larderkv/larder/storage/segment"
)

// Whoever reads an index refuses nobody who opens it, and is refused by nobody.
func TestReaderTakesNoLock(t *testing.T) {
	dir, o := filepath.Join(t.TempDir(), "index"), Options{Store: segment.ID{1}}
	x, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Scope(scope); err != nil {
		t.Fatal(err)
	}
	x.Add(entry(1, 1))
	shut(t, x)
	r, err := OpenReader(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	x, err = Open(dir, o)
	if err != nil {
		t.Fatalf("while it is read: %v", err)
	}
	again, err := OpenReader(dir, o)
	if err != nil {
		t.Fatalf("while it is open: %v", err)
	}
	n := 0
	err = again.Load(func(uint64) {}, func(Entry) error { n++; return nil })
	if err := errors.Join(err, r.Close(), again.Close()); err != nil || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
	shut(t, x)
}
