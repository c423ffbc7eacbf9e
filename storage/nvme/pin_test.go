package nvme

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
)

func keysOf(chunks ...int) (list []keys.Key) {
	for _, n := range chunks {
		list = append(list, keyOf(n))
	}
	return list
}

// flood puts chunks until segments dropped went, none of them used.
func flood(t *testing.T, s tested, from int, dropped uint64) (next int) {
	t.Helper()
	until := s.Stats().DroppedSegments + dropped
	for ; s.Stats().DroppedSegments < until; from++ {
		putChunk(t, s.tier(0), from)
		if from > 1e6 {
			t.Fatal("nothing is evicted")
		}
	}
	return from
}

func pinnedAre(t *testing.T, what string, tier *Tier, want bool, chunks ...int) {
	t.Helper()
	for _, n := range chunks {
		if got := tier.IsPinned(keyOf(n)); got != want {
			t.Errorf("%s: chunk %d is pinned: %v", what, n, got)
		}
	}
}

// wholeIndex writes what the index was told.
func wholeIndex(t *testing.T, s tested) {
	t.Helper()
	if err := s.index.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Pinned chunks outlive eviction, a kill, a restart and the loss of the index,
// until they are unpinned; then they go like others.
func TestPin(t *testing.T) {
	dir := t.TempDir()
	o := manual()
	o.ForwardPercent = -1 // nothing but the pin keeps them
	s := open(t, dir, o)
	tier := s.tier(0)
	for n := range 8 {
		putChunk(t, tier, n)
	}
	putChunk(t, tier.Pinned(), 8)
	pinnedAre(t, "put as a pin", tier, true, 8)
	m, err := tier.Pin(t.Context(), keysOf(1, 2, 99))
	if err != nil || m != (Moved{Chunks: 2, Bytes: 2 * 20480, Absent: 1}) {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err := tier.Pin(t.Context(), keysOf(2, 8)); err != nil || m != (Moved{Chunks: 2}) {
		t.Fatalf("pinned again: %+v, %v", m, err)
	}
	pinnedAre(t, "pinned", tier, true, 1, 2, 8)
	pinnedAre(t, "not pinned", tier, false, 0, 3, 99)
	want(t, "moved", tier, true, 0, 1, 2, 3, 8)
	if st := s.Stats(); st.Pinned != 3*20480 || st.MovedBytes != 2*20480 {
		t.Errorf("%d bytes are pinned, %d were moved", st.Pinned, st.MovedBytes)
	}
	next := flood(t, s, 10, 40)
	want(t, "after eviction", tier, true, 1, 2, 8)
	want(t, "not pinned", tier, false, 0, 3)

	check := func(what, dir string) {
		t.Helper()
		u := open(t, dir, o)
		defer u.Close()
		want(t, what, u.tier(0), true, 1, 2, 8, next-1)
		pinnedAre(t, what, u.tier(0), true, 1, 2, 8)
		pinnedAre(t, what, u.tier(0), false, next-1)
		flood(t, u, next, 40)
		want(t, what+", after eviction", u.tier(0), true, 1, 2, 8)
		want(t, what+", after eviction", u.tier(0), false, next-1)
	}
	wholeIndex(t, s)
	check("killed", image(t, dir))
	noIndex := image(t, dir)
	if err := os.RemoveAll(filepath.Join(noIndex, "index")); err != nil {
		t.Fatal(err)
	}
	check("without index", noIndex)

	if m, err := tier.Unpin(t.Context(), keysOf(1, 8)); err != nil || m.Chunks != 2 || m.Bytes != 2*20480 {
		t.Fatalf("%+v, %v", m, err)
	}
	want(t, "unpinned", tier, true, 1, 2, 8)
	pinnedAre(t, "unpinned", tier, false, 1, 8)
	killed := image(t, dir)
	u := open(t, killed, o)
	want(t, "unpinned, killed", u.tier(0), true, 1, 2, 8)
	pinnedAre(t, "unpinned, killed", u.tier(0), false, 1, 8)
	u.Close()
	flood(t, s, next, 40)
	want(t, "unpinned, after eviction", tier, false, 1, 8)
	want(t, "still pinned", tier, true, 2)
	s.Close()
	check2 := open(t, dir, o)
	want(t, "closed and opened", check2.tier(0), true, 2)
	pinnedAre(t, "closed and opened", check2.tier(0), true, 2)
	check2.Close()
}

// Pins take their share and no more; what is refused says how much and of what,
// and stays as it was. Delete and Clear make room again.
func TestPinShare(t *testing.T) {
	o := manual()
	s := open(t, t.TempDir(), o)
	defer s.Close()
	tier := s.tier(0)
	var all []int
	for n := range 12 {
		putChunk(t, tier, n)
		all = append(all, n)
	}
	const share = 1 << 20 / 100 * 20 // ten chunks
	m, err := tier.Pin(t.Context(), keysOf(all...))
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Full || f.Value != fmt.Sprint(11*20480) || f.Limit != fmt.Sprint(share) {
		t.Errorf("beyond the share: %v", err)
	}
	if m.Chunks != 10 || m.Full != 2 || m.Absent != 0 {
		t.Errorf("%+v", m)
	}
	pinnedAre(t, "within", tier, true, all[:10]...)
	pinnedAre(t, "beyond", tier, false, all[10:]...)
	want(t, "all", tier, true, all...)
	d, b := one(t, 50, 0, 0)
	if _, err := tier.Pinned().Put(t.Context(), d, b); !errors.Is(err, fault.Full) {
		t.Errorf("put beyond the share: %v", err)
	}
	if st := s.Stats(); st.Pinned != 10*20480 || st.PinLimit != share {
		t.Errorf("%d bytes are pinned, of %d", st.Pinned, st.PinLimit)
	}

	for n := range 3 {
		if ok, err := tier.Delete(t.Context(), keyOf(n)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if m, err := tier.Pin(t.Context(), keysOf(10, 11)); err != nil || m.Chunks != 2 {
		t.Errorf("after deletions: %+v, %v", m, err)
	}
	putChunk(t, s.tier(1).Pinned(), 0)
	used := s.Stats().Segments.Used
	if chunks, _, err := s.Clear(t.Context(), func(sc storage.Scope) bool { return sc == scopeOf(0) }); err != nil || chunks != 9 {
		t.Errorf("%d chunks cleared, %v", chunks, err)
	}
	if st := s.Stats(); st.Pinned != 20480 || st.Segments.Used > used-9*20480 {
		t.Errorf("%d bytes are pinned after a clear; %d used, %d before", st.Pinned, st.Segments.Used, used)
	}
	pinnedAre(t, "another tenant's", s.tier(1), true, 0)

	o.PinnedPercent = -1
	none := open(t, t.TempDir(), o)
	defer none.Close()
	putChunk(t, none.tier(0), 1)
	if m, err := none.tier(0).Pin(t.Context(), keysOf(1)); !errors.Is(err, fault.Full) || m.Full != 1 {
		t.Errorf("no share: %+v, %v", m, err)
	}
}

// What is left of sparse pinned segments moves together and stays pinned.
func TestPinSparse(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	defer s.Close()
	tier := s.tier(0)
	for n := range 10 {
		putChunk(t, tier.Pinned(), n)
	}
	for n := 20; n < 30; n++ { // earns what compaction writes
		putChunk(t, tier, n)
	}
	for n := range 10 {
		if n%3 != 0 {
			if _, err := tier.Delete(t.Context(), keyOf(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.segments.Seal(t.Context(), pinned.ID); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		s.settleSealed()
		s.compact(t.Context())
	}
	if s.Stats().Compacted == 0 {
		t.Error("no segment was compacted")
	}
	want(t, "kept", tier, true, 0, 3, 6, 9)
	pinnedAre(t, "kept", tier, true, 0, 3, 6, 9)
}

// A pin that is cut short by a kill leaves the chunk whole, pinned or not; what
// had been given back and came again with a power cut does not undo it.
func TestPinCutShort(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	defer s.Close()
	tier := s.tier(0)
	for n := range 4 {
		putChunk(t, tier, n)
	}
	if err := s.segments.Seal(t.Context(), normal.ID); err != nil {
		t.Fatal(err)
	}
	s.settleSealed()
	wholeIndex(t, s)
	var old []segment.Location
	if _, err := tier.moveChunk(t.Context(), keyOf(1), pinned, &old); err != nil || len(old) != len(layout) {
		t.Fatal(len(old), err)
	}
	// Both copies are there, and the index knows the first only, or both ends of
	// the move, or nothing.
	first := image(t, dir)
	wholeIndex(t, s)
	second := image(t, dir)
	third := image(t, dir)
	if err := os.RemoveAll(filepath.Join(third, "index")); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{"before the index": first, "after the index": second, "without index": third} {
		u := open(t, dir, manual())
		want(t, what, u.tier(0), true, 0, 1, 2, 3)
		pinnedAre(t, what, u.tier(0), true, 1)
		if st := u.Stats(); st.Pinned != 20480 || st.Parts != 4*len(layout) {
			t.Errorf("%s: %d bytes are pinned, %d parts", what, st.Pinned, st.Parts)
		}
		u.Close()
		u = open(t, dir, manual())
		want(t, what+", again", u.tier(0), true, 0, 1, 2, 3)
		pinnedAre(t, what+", again", u.tier(0), true, 1)
		u.Close()
	}
	if err := s.release(t.Context(), old); err != nil {
		t.Error(err)
	}
}

// A chunk in the segment that has to go for its own pin is pinned, not lost.
func TestPinOldest(t *testing.T) {
	o := manual()
	o.PinnedPercent = 50
	o.ForwardPercent = 40
	s := open(t, t.TempDir(), o)
	defer s.Close()
	tier := s.tier(0)
	next := flood(t, s, 0, 3)
	var pins []int
	for {
		oldest := 0
		for !tier.Has(keyOf(oldest), 255) || tier.IsPinned(keyOf(oldest)) {
			oldest++
		}
		m, err := tier.Pin(t.Context(), keysOf(oldest))
		if errors.Is(err, fault.Full) {
			break
		}
		if err != nil || m.Chunks != 1 {
			t.Fatalf("chunk %d of %d: %+v, %v", oldest, next, m, err)
		}
		pins = append(pins, oldest)
		pinnedAre(t, "the oldest", tier, true, pins...)
		next = flood(t, s, next, 1)
	}
	if want(t, "pinned", tier, true, pins...); len(pins) < 10 {
		t.Errorf("only %d chunks fit into the share", len(pins))
	}
}

// The tier of pins is a tier like any other, but that it refuses where others
// evict.
func TestConformancePinned(t *testing.T) {
	o := smallOptions()
	o.PinnedPercent = 50
	tiertest.Run(t, &tiertest.Subject{
		Name: "nvme, pinned", Layout: layout, Room: 1 << 20, Least: 9 * 16896, Persistent: true,
		Open: func(tb tiertest.TB, dir string) tiertest.Store { return pinning{open(tb, dir, o)} },
	})
}

type pinning struct{ tested }

func (p pinning) Tier(scope int) storage.Tier { return p.tier(scope).Pinned() }

// lossyPart is a part of a chunk that has lost something, with its bytes.
func lossyPart(t *testing.T, n, i int, quality uint8) (*part.Descriptor, []byte) {
	t.Helper()
	d, b := one(t, n, i, int(quality))
	d.Quality = quality
	if err := part.Seal(d); err != nil {
		t.Fatal(err)
	}
	return d, b
}

func putLossy(t *testing.T, tier storage.Tier, n int, quality uint8) {
	t.Helper()
	for i := range layout {
		d, b := lossyPart(t, n, i, quality)
		if _, err := tier.Put(t.Context(), d, b); err != nil {
			t.Fatal(err)
		}
	}
}

func qualityIs(t *testing.T, what string, tier *Tier, n int, quality uint8) {
	t.Helper()
	if found, q := tier.Match(keysOf(n), 255); found != 1 || q != quality {
		t.Errorf("%s: chunk %d: %d found, quality %d, not %d", what, n, found, q, quality)
	}
}

// A better chunk takes over the pin of the one that it replaces, over a restart
// too; where the share of pins has no room for both, the pinned one stays.
func TestPinOutlivesBetter(t *testing.T) {
	dir := t.TempDir()
	o := manual()
	o.PinnedPercent = 4 // two chunks
	o.ForwardPercent = -1
	s := open(t, dir, o)
	tier := s.tier(0)
	putLossy(t, tier, 1, 3)
	putLossy(t, tier, 2, 3)
	if m, err := tier.Pin(t.Context(), keysOf(1)); err != nil || m.Chunks != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if !tier.Takes(keyOf(1), 20480) || tier.Takes(keyOf(1), 32<<10) || !tier.Takes(keyOf(2), 1<<20) || !tier.Takes(keyOf(3), 1<<20) {
		t.Error("what finds room beside a pin, and beside none")
	}
	putLossy(t, tier, 1, 1)
	putLossy(t, tier, 2, 1)
	qualityIs(t, "pinned", tier, 1, 1)
	qualityIs(t, "not pinned", tier, 2, 1)
	pinnedAre(t, "replaced", tier, true, 1)
	pinnedAre(t, "replaced", tier, false, 2)
	if st := s.Stats(); st.Pinned != 20480 {
		t.Errorf("%d bytes are pinned", st.Pinned)
	}
	next := flood(t, s, 10, 40)
	qualityIs(t, "after eviction", tier, 1, 1)
	want(t, "not pinned", tier, false, 2)

	putChunk(t, tier.Pinned(), 5)
	d, b := one(t, 1, 0, 0)
	if _, err := tier.Put(t.Context(), d, b); !errors.Is(err, fault.Full) {
		t.Errorf("no room for both: %v", err)
	}
	if tier.Takes(keyOf(1), 20480) {
		t.Error("there is no room")
	}
	s.Close()
	s = open(t, dir, o)
	defer s.Close()
	tier = s.tier(0)
	flood(t, s, next, 40)
	qualityIs(t, "no room for a better one", tier, 1, 1)
	pinnedAre(t, "no room for a better one", tier, true, 1, 5)
}

// A chunk that is pinned while a better one comes part by part keeps its pin, and
// nothing of the other stays.
func TestPinWhileBetterComes(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	defer s.Close()
	tier := s.tier(0)
	putLossy(t, tier, 1, 3)
	first := s.Stats().Parts
	d, b := one(t, 1, 0, 0)
	if out, err := tier.Put(t.Context(), d, b); err != nil || out != storage.Kept {
		t.Fatal(out, err)
	}
	if _, err := tier.Pin(t.Context(), keysOf(1)); err != nil {
		t.Fatal(err)
	}
	var last error
	for i := 1; i < len(layout); i++ {
		d, b := one(t, 1, i, 0)
		_, last = tier.Put(t.Context(), d, b)
	}
	if !errors.Is(last, fault.Miss) {
		t.Errorf("the last part: %v", last)
	}
	qualityIs(t, "pinned meanwhile", tier, 1, 3)
	pinnedAre(t, "pinned meanwhile", tier, true, 1)
	if st := s.Stats(); st.Parts != first || st.Pinned != 20480 {
		t.Errorf("%d parts, %d bytes are pinned", st.Parts, st.Pinned)
	}
	putChunk(t, tier, 1)
	qualityIs(t, "again", tier, 1, 0)
	pinnedAre(t, "again", tier, true, 1)
}
