package nvme

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// picky is a file system that does not read what fails selects: of a segment, by
// its sequence, at an offset of a file of so many bytes.
type picky struct {
	segment.SystemFS
	fails atomic.Pointer[func(sequence uint64, offset, size int64) bool]
}

func (p *picky) Open(name string, buffered bool) (segment.File, error) {
	f, err := p.SystemFS.Open(name, buffered)
	if err != nil {
		return nil, err
	}
	var sequence uint64
	_, _ = fmt.Sscanf(filepath.Base(name), "%x.seg", &sequence)
	return &pickyFile{f, p, sequence}, nil
}

type pickyFile struct {
	segment.File
	p        *picky
	sequence uint64
}

func (f *pickyFile) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	size, _, err := f.Size()
	if err != nil {
		return 0, err
	}
	if fails := f.p.fails.Load(); fails != nil && (*fails)(f.sequence, offset, size) {
		return 0, unix.EIO
	}
	return f.File.ReadVec(bufs, offset)
}

// unreadable are segments of which only the last page can be read: they are there,
// sealed, and what is in them cannot be found.
func (p *picky) unreadable(segments ...uint64) {
	fails := func(sequence uint64, offset, size int64) bool {
		return slices.Contains(segments, sequence) && offset != size-segment.PageBytes
	}
	p.fails.Store(&fails)
}

func (p *picky) allReadable() { p.fails.Store(nil) }

// halfUnread is a store without an index, of chunks 0 to 8, of which 0 and 1 are
// pinned, opened while two segments cannot be read: that of the pins, and one with
// some parts of chunk 4.
func halfUnread(t *testing.T) (s tested, disk *picky, o Options, bad [2]uint64) {
	t.Helper()
	dir := t.TempDir()
	disk = &picky{}
	o = manual()
	o.ForwardPercent = -1
	o.Segment.FS = disk
	s = open(t, dir, o)
	for n := range 9 {
		putChunk(t, s.tier(0), n)
	}
	if m, err := s.tier(0).Pin(t.Context(), keysOf(0, 1)); err != nil || m.Chunks != 2 {
		t.Fatal(m, err)
	}
	bad = [2]uint64{segmentOf(s.tier(0), 0, 0), segmentOf(s.tier(0), 4, 0)}
	if segmentOf(s.tier(0), 4, 2) == bad[1] && segmentOf(s.tier(0), 4, 1) == bad[1] && segmentOf(s.tier(0), 3, 0) == bad[1] {
		t.Fatal("no chunk lies in a segment that can be read and in one that cannot")
	}
	s.Close()
	must(t, os.RemoveAll(filepath.Join(dir, "index")))
	disk.unreadable(bad[:]...)
	u, report, err := Open(t.Context(), dir, o)
	must(t, err)
	if report.Unread != 2 {
		t.Errorf("%+v", report)
	}
	return tested{t, dir, u}, disk, o, bad
}

func (s tested) has(sequence uint64) bool {
	_, there := s.segments.Segment(sequence)
	return there
}

func everyChunk() (all []int) {
	for n := range 9 {
		all = append(all, n)
	}
	return all
}

// A segment that the device does not read at a start, though the index does not
// vouch for it, is not empty: it stays, what belongs to it stays, and the next start
// has all of it, pins included.
func TestUnread(t *testing.T) {
	s, disk, o, bad := halfUnread(t)
	want(t, "in another segment", s.tier(0), true, 8)
	want(t, "unread", s.tier(0), false, 0, 1, 4)
	if st := s.Stats(); st.Unread != 2 || st.Off {
		t.Errorf("%d unread segments, off: %v", st.Unread, st.Off)
	}
	s.compactAll(t)
	if !s.has(bad[0]) || !s.has(bad[1]) {
		t.Fatal("a segment was dropped that only could not be read")
	}
	s.Close()
	disk.allReadable()
	s = open(t, s.dir, o)
	want(t, "read at the next start", s.tier(0), true, everyChunk()...)
	pinnedAre(t, "read at the next start", s.tier(0), true, 0, 1)
	if st := s.Stats(); st.Unread != 0 {
		t.Errorf("%d unread segments", st.Unread)
	}
	s.Close()
}

// A read that fails once is tried again at the same start.
func TestUnreadOnce(t *testing.T) {
	s, disk, o, bad := halfUnread(t)
	s.Close()
	var failed atomic.Bool // segments are opened side by side
	fails := func(sequence uint64, offset, size int64) bool {
		return sequence == bad[1] && offset != size-segment.PageBytes && failed.CompareAndSwap(false, true)
	}
	disk.fails.Store(&fails)
	s = open(t, s.dir, o)
	defer s.Close()
	if !failed.Load() {
		t.Fatal("nothing failed")
	}
	want(t, "read again", s.tier(0), true, everyChunk()...)
	if st := s.Stats(); st.Unread != 0 {
		t.Errorf("%d unread segments", st.Unread)
	}
}

// What is deleted or cleared does not come back with a segment that was unread:
// it is found there, or the caller hears that it could not be.
func TestUnreadRemoval(t *testing.T) {
	s, disk, o, _ := halfUnread(t)
	tier := s.tier(0)
	if _, err := tier.Delete(t.Context(), keyOf(4)); !errors.Is(err, fault.Unavailable) {
		t.Errorf("deleted, for all that can be known: %v", err)
	}
	if _, _, err := s.Clear(t.Context(), func(storage.Scope) bool { return true }); !errors.Is(err, fault.Unavailable) {
		t.Errorf("cleared, for all that can be known: %v", err)
	}
	want(t, "cleared", tier, false, everyChunk()...)
	disk.allReadable()
	for range 2 { // what is gone is punched once
		if _, err := tier.Delete(t.Context(), keyOf(0)); err != nil {
			t.Error(err)
		}
	}
	s.Close()
	s = open(t, s.dir, o)
	want(t, "deleted", s.tier(0), false, 0)
	want(t, "in the segment as well", s.tier(0), true, 1)
	s.Close()

	s, disk, o, _ = halfUnread(t)
	disk.allReadable()
	if _, _, err := s.Clear(t.Context(), func(sc storage.Scope) bool { return sc == scopeOf(0) }); err != nil {
		t.Error(err)
	}
	s.Close()
	s = open(t, s.dir, o)
	want(t, "cleared", s.tier(0), false, everyChunk()...)
	s.Close()
}

// A chunk that is stored again, since its segment is unread, is there once.
func TestUnreadStoredAgain(t *testing.T) {
	s, disk, o, _ := halfUnread(t)
	putChunk(t, s.tier(0), 4)
	want(t, "stored again", s.tier(0), true, 4)
	s.Close()
	disk.allReadable()
	s = open(t, s.dir, o)
	defer s.Close()
	want(t, "read at the next start", s.tier(0), true, everyChunk()...)
	if ok, err := s.tier(0).Delete(t.Context(), keyOf(4)); !ok || err != nil {
		t.Error(ok, err)
	}
	for _, info := range s.segments.Segments() {
		must(t, s.segments.Scan(t.Context(), info.Sequence, func(e segment.Entry) error {
			if e.Part.ID.Chunk == keyOf(4) && !e.Punched {
				t.Errorf("a copy is left at %v", e.Location)
			}
			return nil
		}))
	}
}

// Eviction takes unread segments in their turn, those of pins when nothing else is
// left.
func TestUnreadEvicted(t *testing.T) {
	s, disk, o, bad := halfUnread(t)
	next := flood(t, s, 20, 40)
	if s.has(bad[1]) || !s.has(bad[0]) {
		t.Errorf("there after an eviction of everything: %v, the pins' %v", s.has(bad[1]), s.has(bad[0]))
	}
	if st := s.Stats(); st.Unread != 1 {
		t.Errorf("%d unread segments", st.Unread)
	}
	s.Close()
	disk.allReadable()
	s = open(t, s.dir, o)
	want(t, "pins", s.tier(0), true, 0, 1, next-1)
	for _, info := range s.segments.Segments() { // all but the pins'
		if info.Sequence != bad[0] {
			must(t, s.dropSegment(info, byBudget))
		}
	}
	s.Close()
	must(t, os.RemoveAll(filepath.Join(s.dir, "index")))
	disk.unreadable(bad[0])
	s = open(t, s.dir, o)
	defer s.Close()
	if st := s.Stats(); st.Unread != 1 {
		t.Fatalf("%d unread segments", st.Unread)
	}
	s.room.Lock()
	err := s.evict(t.Context(), byBudget, true)
	s.room.Unlock()
	if err != nil || s.has(bad[0]) {
		t.Errorf("the last segment: there %v, %v", s.has(bad[0]), err)
	}
	d, _ := one(t, 0, 0, 0)
	if err := s.tier(0).Stat(t.Context(), d.ID, &part.Descriptor{}); !errors.Is(err, fault.Miss) {
		t.Error(err)
	}
}
