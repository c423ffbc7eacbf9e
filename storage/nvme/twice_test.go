package nvme

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// placeOf is where a part lies.
func placeOf(t *testing.T, tier *Tier, n, i int) segment.Location {
	t.Helper()
	d, _ := one(t, n, i, 0)
	f, err := tier.locate(d.ID, false)
	must(t, err)
	return f.location
}

// A place that the device does not read at a start is worth less than another of
// the same part that can be read: it may be one of an index of some time ago.
func TestTwiceAndUnreadable(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(t.TempDir(), "old")
	disk := &picky{}
	o := manual()
	o.Segment.FS = disk
	s := open(t, dir, o)
	for n := range 4 {
		putChunk(t, s.tier(0), n)
	}
	var places []segment.Location
	for i := range layout {
		places = append(places, placeOf(t, s.tier(0), 2, i))
	}
	s.Close()
	must(t, os.CopyFS(old, os.DirFS(filepath.Join(dir, "index"))))
	s = open(t, dir, o)
	deleteAll(t, s.tier(0), 2)
	putChunk(t, s.tier(0), 2)
	s.Close()
	must(t, os.RemoveAll(filepath.Join(dir, "index")))
	must(t, os.CopyFS(filepath.Join(dir, "index"), os.DirFS(old)))

	var failed atomic.Bool
	fails := func(sequence uint64, offset, _ int64) bool {
		for _, l := range places {
			if sequence == l.Segment && offset == int64(l.Group)*segment.PageBytes {
				failed.Store(true)
				return true
			}
		}
		return false
	}
	disk.fails.Store(&fails)
	s = open(t, dir, o)
	if !failed.Load() {
		t.Fatal("nothing failed")
	}
	want(t, "the other place", s.tier(0), true, 0, 1, 2, 3)
	s.Close()
	disk.allReadable()
	s = open(t, dir, o)
	defer s.Close()
	want(t, "the next start", s.tier(0), true, 0, 1, 2, 3)
}

// An index that names a place in the midst of another part, as one of another
// time of the same store may, costs that part nothing.
func TestTwiceAtAnothersPlace(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	putChunk(t, s.tier(0), 1)
	putChunk(t, s.tier(0), 2)
	other := placeOf(t, s.tier(0), 1, 0)
	id := s.ID()
	s.Close()

	x, err := index.Open(filepath.Join(dir, "index"), index.Options{Store: id})
	must(t, err)
	d, _ := one(t, 2, 0, 0)
	x.Add(index.Entry{ID: d.ID, Quality: d.Quality, Checksum: 1, Location: segment.Location{
		Segment: other.Segment, Group: other.Page, Page: other.Page + 1, HeaderPages: 1, Length: 512,
	}})
	must(t, x.Close())

	s = open(t, dir, manual())
	defer s.Close()
	want(t, "both", s.tier(0), true, 1, 2)
	if got := placeOf(t, s.tier(0), 2, 0); got.Length != uint32(len(mustPart(t, 2, 0))) {
		t.Errorf("it lies at %v", got)
	}
}

func mustPart(t *testing.T, n, i int) []byte {
	_, b := one(t, n, i, 0)
	return b
}

// A copy that was not durable when its process was killed is no reason to give
// back the place that was: if its segment cannot be synced at the start, a power cut
// takes it.
func TestTwiceAndNotDurable(t *testing.T) {
	for seed := range uint64(8) {
		m := newMachine(seed)
		s := m.open(t)
		tier, err := s.Tier(scopeOf(0), layout)
		must(t, err)
		putChunk(t, tier, 0)
		must(t, s.segments.Seal(t.Context(), normal.ID))
		s.settleSealed()
		must(t, s.Sync(t.Context()))
		var killed *machine
		var once sync.Once
		m.segments.Inject(func(op simfs.Op) error {
			if op.Kind == "SyncData" { // of the copy, which is written
				once.Do(func() { killed = m.killed() })
			}
			return nil
		})
		_, _ = tier.Pin(t.Context(), keysOf(0)) // it dies
		if killed == nil {
			t.Fatal("nothing was synced")
		}
		_ = s.Close()

		m = killed
		var failed atomic.Bool
		m.segments.Inject(func(op simfs.Op) error {
			if op.Kind == "SyncData" && strings.HasSuffix(op.Name, ".seg") {
				failed.Store(true)
				return unix.EIO
			}
			return nil
		})
		s = m.open(t)
		if !failed.Load() {
			t.Fatal("nothing failed")
		}
		m.segments.Inject(nil)
		must(t, s.segments.SyncPunched(t.Context()))
		m.cut()
		_ = s.Close() // of a machine without power
		s = m.next.open(t)
		tier, err = s.Tier(scopeOf(0), layout)
		must(t, err)
		want(t, "after the power cut", tier, true, 0)
		d, b := one(t, 0, 0, 0)
		if _, err := tier.Get(context.Background(), d.ID, new(part.Descriptor), b); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		must(t, s.Close())
	}
}
