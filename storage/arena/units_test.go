package arena

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Classes waste at most 1/8 and a page; exact ones only the page.
func TestClassPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 64<<20).Draw(t, "length")
		pages := uint32((n + PageBytes - 1) / PageBytes)
		c := classPages(n, nil)
		if c < pages || uint64(c) > uint64(pages)+uint64(pages)/8 {
			t.Fatalf("%d pages in a slot of %d", pages, c)
		}
		if got := classPages(n, map[uint32]int{pages: 1}); got != pages {
			t.Fatalf("exact class of %d pages is %d", pages, got)
		}
		if again := classPages(uint64(c)*PageBytes, nil); again != c {
			t.Fatalf("class %d is rounded to %d", c, again)
		}
	})
}

// A run wastes at most 1/8 for slots of up to 1/8 of a segment, and every
// length up to the longest run has one.
func TestRunOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seg := int64(minSegmentBytes) << rapid.IntRange(0, 14).Draw(t, "segment")
		total := rapid.Int64Range(1, 4*seg/minSegmentBytes).Draw(t, "units") * minSegmentBytes
		unit := max(seg/4096, minSegmentBytes)
		g := newGeometry(seg, max(total/unit*unit, unit))
		longest := g.runPages(g.maxOrder)
		class := classPages(rapid.Uint64Range(1, uint64(longest)*PageBytes).Draw(t, "length"), nil)
		o, ok := g.order(class)
		if !ok || g.runPages(o) < class {
			t.Fatalf("class %d of %d pages has no run", class, longest)
		}
		if waste := g.runPages(o) % class; class <= longest/8 && waste > g.runPages(o)/8 {
			t.Fatalf("class %d wastes %d of %d pages", class, waste, g.runPages(o))
		}
		if _, ok := g.order(longest + 1); ok {
			t.Fatalf("a slot longer than any run")
		}
	})
}

// Slots never overlap, everything comes back, and then the longest runs are
// there again.
func TestSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := rapid.Int64Range(1, 40).Draw(t, "units")
		s, err := newSpace(newGeometry(16*minSegmentBytes, units*minSegmentBytes), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		s.freeAll()
		fresh := s.runs.head
		type slot struct{ page, class uint32 }
		var slots []slot
		used := map[uint32]bool{}
		for i := range rapid.IntRange(1, 300).Draw(t, "operations") {
			if len(slots) > 0 && rapid.IntRange(0, 2).Draw(t, "op") == 0 {
				k := rapid.IntRange(0, len(slots)-1).Draw(t, "slot")
				s.free(slots[k].page)
				for p := range slots[k].class {
					delete(used, slots[k].page+p)
				}
				slots = append(slots[:k], slots[k+1:]...)
				continue
			}
			class := classPages(uint64(rapid.IntRange(1, 40).Draw(t, "pages"))*PageBytes, nil)
			page, ok := s.alloc(class, uint32(i+1))
			if !ok {
				continue
			}
			for p := range class {
				if used[page+p] || page+p >= s.g.units*s.g.unitPages {
					t.Fatalf("page %d is given out twice or is not there", page+p)
				}
				used[page+p] = true
			}
			if s.user(page) != uint32(i+1) {
				t.Fatalf("slot has user %d", s.user(page))
			}
			slots = append(slots, slot{page, class})
		}
		if int64(len(used)) != s.usedPages {
			t.Fatalf("%d pages used, counted %d", len(used), s.usedPages)
		}
		for _, sl := range slots {
			s.free(sl.page)
		}
		for o := range fresh {
			if (fresh[o] == 0) != (s.runs.head[o] == 0) {
				t.Fatalf("free runs of order %d differ from the beginning", o)
			}
		}
		if len(s.classes) != 0 && s.usedPages != 0 {
			t.Fatalf("left: %v", s.classes)
		}
	})
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no budget":             {},
		"small budget":          {Budget: 4096},
		"huge budget":           {Budget: 1 << 50},
		"segment not a power":   {Budget: 1 << 20, SegmentBytes: 100000},
		"too many segments":     {Budget: 1 << 30, SegmentBytes: 64 << 10},
		"reserve eats all":      {Budget: 1 << 20, Mode: Guarded, WriteReserve: 1 << 20},
		"reserve in shared":     {Budget: 1 << 20, WriteReserve: 1},
		"write segment size":    {Budget: 1 << 30, Mode: Guarded, WriteSegmentBytes: 1000},
		"negative lease":        {Budget: 1 << 20, Lease: -1},
		"unknown mode":          {Budget: 1 << 20, Mode: 9},
		"unknown verify":        {Budget: 1 << 20, Verify: 9},
		"unknown huge pages":    {Budget: 1 << 20, HugePages: 9},
		"negative sample":       {Budget: 1 << 20, SampleEvery: -1},
		"negative budget":       {Budget: -1},
		"reserve below one":     {Budget: 1 << 30, Mode: Guarded, WriteReserve: 64 << 10},
		"endless lease":         {Budget: 1 << 20, Lease: 1 << 62},
		"negative reserve":      {Budget: 1 << 20, Mode: Guarded, WriteReserve: -1},
		"more segments than fd": {Budget: 1 << 40, SegmentBytes: 1 << 30},
	} {
		if a, err := Open(o); err == nil {
			t.Errorf("%s: opened", name)
			_ = a.Close()
		}
	}
	for _, o := range []Options{{Budget: 100 << 10}, {Budget: 300 << 20}, {Budget: 3 << 30}, {Budget: 1 << 40}, {Budget: 1 << 30, Mode: Guarded}, {Budget: 16 << 20, Mode: Guarded}} {
		a, err := Open(o)
		if err != nil {
			t.Errorf("%+v: %v", o, err)
			continue
		}
		if st := a.Stats(); st.Budget > o.Budget || st.Budget < o.Budget-o.Budget/8-64<<10 {
			t.Errorf("budget %d became %d", o.Budget, st.Budget)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What the kernel grants is reported.
func TestPrefault(t *testing.T) {
	a, err := Open(Options{Budget: 8 << 20, Prefault: true, HugePages: HugeTLB2M})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	st := a.Stats()
	if st.Prefaulted != 8<<20 || st.HugePages > 8<<20 {
		t.Fatalf("%+v", st)
	}
	t.Logf("huge pages granted: %d bytes", st.HugePages)
}

// Transparent huge pages come when memory is first used; the figure follows, at
// most one reading in 10 s.
func TestHugePagesAfterOpen(t *testing.T) {
	clock := &fakeClock{now: 1}
	a, err := Open(Options{Budget: 8 << 20, SegmentBytes: 4 << 20, HugePages: Transparent, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	readings, kb := 0, 0
	a.huge.smaps = func() (io.ReadCloser, error) {
		readings++
		var b strings.Builder
		for start := range a.huge.starts {
			fmt.Fprintf(&b, "%x-%x rw-s 00000000 00:01 7 /memfd:larder-arena (deleted)\nSize: 4096 kB\nShmemPmdMapped: %8d kB\n", start, start+4<<20, kb)
		}
		b.WriteString("1000-2000 rw-p 00000000 00:00 0\nShmemPmdMapped:     2048 kB\n")
		return io.NopCloser(strings.NewReader(b.String())), nil
	}
	for _, c := range []struct {
		after    time.Duration
		kb       int
		want     int64
		readings int
	}{
		{0, 0, 0, 1}, {9 * time.Second, 2048, 0, 1}, {time.Second, 2048, 4 << 20, 2}, {time.Second, 4096, 4 << 20, 2}, {10 * time.Second, 4096, 8 << 20, 3},
	} {
		clock.now += int64(c.after)
		kb = c.kb
		if got := a.Stats().HugePages; got != c.want || readings != c.readings {
			t.Fatalf("%+v: %d bytes after %d readings", c, got, readings)
		}
	}
}

// A chunk that was assembling when a Clear began, and that becomes complete
// between two of its batches with a head that the Clear has passed, goes too.
func TestClearMeetsPublish(t *testing.T) {
	w := newWorld(t, Options{Budget: 64 << 10, SegmentBytes: 64 << 10}, []PartSpec{{RawLength: 4096, Layers: 1}, {HeadGroup: 1, RawLength: 4096, Layers: 1}})
	c := w.attach()
	w.must(w.grant(c, 4096, 3))
	low := c.grants[0]
	w.writeTo(c, 2, keyOf(0), 1, 0)
	w.commit(c, Chunk{Key: keyOf(0), Tokens: 256}, 0) // the part of before, in a high record
	w.must(w.a.Return(c.owner, []Slot{low.slot}))
	c.grants = c.grants[1:]
	f := Filter{Any, Any}
	w.a.bumpEpochs(f)
	w.must(w.grant(c, 4096, 1)) // takes the low record again
	w.writeTo(c, 1, keyOf(0), 0, 0)
	w.commit(c, Chunk{Key: keyOf(0), Tokens: 256}, 0)
	refs := w.match(0, 1, false)
	if len(refs) != 1 {
		t.Fatalf("%d chunks", len(refs))
	}
	if _, _, more := w.a.clearFrom(refs[0].Index+1, f); !more {
		t.Fatal("nothing left to clear")
	}
	if len(w.match(0, 1, false)) != 0 {
		t.Fatal("bytes of before the clear are visible")
	}
	w.end()
}

// A client that got a segment can not change its seals or its size.
func TestSeals(t *testing.T) {
	for _, o := range []Options{{Budget: 1 << 20}, {Budget: 1 << 20, Mode: Guarded}} {
		a, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		fd := a.Handles().Segments[0]
		if err := unix.Ftruncate(fd, 4096); !errors.Is(err, unix.EPERM) {
			t.Errorf("shrink: %v", err)
		}
		if err := unix.Ftruncate(fd, 1<<30); !errors.Is(err, unix.EPERM) {
			t.Errorf("grow: %v", err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); !errors.Is(err, unix.EPERM) {
			t.Errorf("seal: %v", err)
		}
		_, mapErr := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		_, writeErr := unix.Pwrite(fd, []byte{1}, 0)
		punchErr := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		if guarded := o.Mode == Guarded; (mapErr != nil) != guarded || (writeErr != nil) != guarded || (punchErr != nil) != guarded {
			t.Errorf("%v: map %v, write %v, punch %v", o.Mode, mapErr, writeErr, punchErr)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
