package nvme

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/larderkv/larder/api/part"
)

// roomy are options with segments of about sixteen chunks, and as much to copy
// forward as there may be.
func roomy() Options {
	o := manual()
	o.Segment.Budget, o.Segment.SegmentBytes = 8<<20, 512<<10
	o.ForwardPercent = 50
	return o
}

func deleteAll(t *testing.T, tier *Tier, chunks ...int) {
	t.Helper()
	for _, n := range chunks {
		if ok, err := tier.Delete(t.Context(), keyOf(n)); !ok || err != nil {
			t.Fatal(n, ok, err)
		}
	}
}

func (s tested) compactAll(t *testing.T) {
	t.Helper()
	must(t, s.segments.Seal(t.Context(), normal.ID))
	for range 10 {
		s.settleSealed()
		s.compact(t.Context())
	}
}

// A damaged part goes when its segment is compacted, and is not copied again and
// again.
func TestCompactDamaged(t *testing.T) {
	s := open(t, t.TempDir(), roomy())
	defer s.Close()
	tier := s.tier(0)
	for n := range 64 {
		putChunk(t, tier, n)
	}
	for n := range 64 {
		if n%16 != 1 {
			deleteAll(t, tier, n)
		}
	}
	s.Damage(0, part.ID{Chunk: keyOf(1)})
	s.compactAll(t)
	if st := s.Stats(); st.Compacted < 4 || st.Corrupt != 1 || st.Segments.Sealed > 1 {
		t.Errorf("%d segments compacted, %d left, %d chunks damaged", st.Compacted, st.Segments.Sealed, st.Corrupt)
	}
	want(t, "damaged", tier, false, 1)
	want(t, "the others", tier, true, 17, 33, 49)
}

// A segment that has to stay, for a namespace that nobody has registered, keeps
// no other from being compacted; and what was copied out of it is gone there, so
// that a deleted chunk does not come back when the index is lost.
func TestCompactUnregistered(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, roomy())
	putChunk(t, s.tier(1), 100)
	for n := range 48 {
		putChunk(t, s.tier(0), n)
	}
	for n := range 48 {
		if n%16 != 1 {
			deleteAll(t, s.tier(0), n)
		}
	}
	s.Close()
	s = open(t, dir, roomy())
	for n := 200; n < 212; n++ { // earns what is copied
		putChunk(t, s.tier(0), n)
	}
	before, _ := s.tier(0).locate(part.ID{Chunk: keyOf(1)}, false)
	s.compactAll(t)
	after, err := s.tier(0).locate(part.ID{Chunk: keyOf(1)}, false)
	if err != nil || before.location == after.location {
		t.Fatalf("chunk 1 lies at %v, %v", after.location, err)
	}
	if _, stayed := s.segments.Segment(before.location.Segment); !stayed || s.Stats().Compacted < 2 {
		t.Errorf("%d segments compacted; the first stayed: %v", s.Stats().Compacted, stayed)
	}
	want(t, "moved", s.tier(0), true, 1, 17, 33)
	deleteAll(t, s.tier(0), 1)
	left := image(t, dir)
	s.Close()
	must(t, os.RemoveAll(filepath.Join(left, indexName)))
	s = open(t, left, roomy())
	want(t, "deleted, and the index lost", s.tier(0), false, 1)
	want(t, "without index", s.tier(0), true, 17, 33)
	want(t, "the unregistered one's", s.tier(1), true, 100)
	s.Close()
}
