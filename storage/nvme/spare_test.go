package nvme

import (
	"errors"
	"slices"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
)

// sparing is a store of about 70 segments of two chunks each, which has room for
// many pins.
func sparing(t *testing.T) tested {
	t.Helper()
	o := manual()
	o.Segment.Budget = 4 << 20
	o.PinnedPercent = 60
	o.ForwardPercent = -1 // nothing is kept because it was used
	return open(t, t.TempDir(), o)
}

// putWhole puts the parts of a chunk together.
func putWhole(t *testing.T, to *Tier, n int) {
	t.Helper()
	var list []storage.PartBytes
	for i := range layout {
		d, b := one(t, n, i, 0)
		list = append(list, storage.PartBytes{Part: d, Bytes: b})
	}
	if _, err := to.PutParts(t.Context(), list); err != nil {
		t.Fatalf("chunk %d: %v", n, err)
	}
}

// full puts chunks until there is room for one more segment, or short of that.
func full(t *testing.T, s tested, from int, short bool) (next int) {
	t.Helper()
	room := 2 * s.segmentBytes
	if short {
		room = s.segmentBytes
	}
	for s.Stats().Segments.Room >= room {
		putWhole(t, s.tier(0), from)
		from++
	}
	if s.Stats().DroppedSegments != 0 {
		t.Fatal("something is evicted already")
	}
	return from
}

func numbers(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// A prompt of which the tail lies in the oldest segments of a full disk is pinned
// whole: room for the pins of its head is not made of its tail.
func TestPinSparesTheRest(t *testing.T) {
	s := sparing(t)
	defer s.Close()
	prompt := numbers(96)
	for _, n := range slices.Backward(prompt) {
		putWhole(t, s.tier(0), n)
	}
	next := full(t, s, len(prompt), false)
	m, err := s.tier(0).Pin(t.Context(), keysOf(prompt...))
	if err != nil || m != (Moved{Chunks: 96, Bytes: 96 * 20480}) {
		t.Errorf("%+v, %v", m, err)
	}
	pinnedAre(t, "pinned", s.tier(0), true, prompt...)
	if s.Stats().DroppedSegments == 0 {
		t.Error("there was room enough; this shows nothing")
	}
	flood(t, s, next, 40)
	want(t, "after eviction", s.tier(0), true, prompt...)
}

// A prompt of which every segment of a full disk has something is pinned whole:
// what its first chunks give back is room for the next.
func TestPinEverywhere(t *testing.T) {
	for _, short := range []bool{false, true} {
		s := sparing(t)
		var prompt []int
		for n := range full(t, s, 0, short) {
			if n%2 == 0 {
				prompt = append(prompt, n)
			}
		}
		m, err := s.tier(0).Pin(t.Context(), keysOf(prompt...))
		if m.Absent != 0 || m.Chunks+m.Full != len(prompt) {
			t.Errorf("%+v, %v", m, err)
		}
		want(t, "all", s.tier(0), true, prompt...)
		s.Close()
	}
}

// Where there is nothing but the prompt, what finds no room is Full and stays.
func TestPinNothingElse(t *testing.T) {
	for _, short := range []bool{false, true} {
		s := sparing(t)
		next := full(t, s, 0, short)
		all := numbers(next)
		m, err := s.tier(0).Pin(t.Context(), keysOf(all...))
		if m.Absent != 0 || m.Chunks+m.Full != next {
			t.Errorf("%+v, %v", m, err)
		}
		want(t, "all", s.tier(0), true, all...)
		pinnedAre(t, "the head", s.tier(0), true, all[:m.Chunks]...)
		if !short && (m.Chunks == 0 || !errors.Is(err, fault.Full)) {
			t.Errorf("%+v, %v", m, err)
		}
		flood(t, s, next, 20) // puts are Full no longer
		s.Close()
	}
}

// What is spared outlives eviction by whoever else writes, pins or not, until it
// is not spared any more; writes that find nothing else to evict are Full.
func TestSpare(t *testing.T) {
	s := sparing(t)
	defer s.Close()
	spared := numbers(30)
	for _, n := range spared {
		putWhole(t, s.tier(0), n)
	}
	next := full(t, s, len(spared), false)
	done := s.tier(0).Spare(keysOf(spared...))
	other := s.tier(1).Spare(keysOf(spared...)) // another tenant's keys are other chunks
	next = flood(t, s, next, 200)
	for n := range 20 {
		putChunk(t, s.tier(0).Pinned(), next+n)
	}
	want(t, "spared", s.tier(0), true, spared...)
	want(t, "not spared", s.tier(0), false, 33, 34, 35)
	done()
	next = flood(t, s, next+20, 40)
	want(t, "no longer spared", s.tier(0), false, spared...)
	other()

	var all []keys.Key
	for n := range next + 1000 {
		all = append(all, keyOf(n))
	}
	done = s.tier(0).Spare(all)
	var err error
	for n := next; err == nil && n < next+1000; n++ {
		for i := range layout {
			d, b := one(t, n, i, 0)
			if _, err = s.tier(0).Put(t.Context(), d, b); err != nil {
				break
			}
		}
	}
	if !errors.Is(err, fault.Full) {
		t.Errorf("nothing is left to evict: %v", err)
	}
	done()
	flood(t, s, next+1000, 3)
}
