package nvme

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// The oldest segment goes whole; what was used in it is copied forward, within
// what writes have earned.
func TestEviction(t *testing.T) {
	o := manual()
	o.ForwardPercent = 30 // a segment of this test holds three chunks
	s := open(t, t.TempDir(), o)
	tier := s.tier(0)
	putChunk(t, tier, 0)
	n := 1
	for ; s.Stats().DroppedSegments < 40; n++ {
		putChunk(t, tier, n)
		want(t, "used all the time", tier, true, 0)
		if n > 1000 {
			t.Fatal("nothing was evicted")
		}
		sp := s.Stats().Segments
		if sp.Used > sp.Budget {
			t.Fatalf("%d bytes used of %d", sp.Used, sp.Budget)
		}
	}
	st := s.Stats()
	if st.Evicted == 0 || st.ForwardedBytes == 0 {
		t.Errorf("%+v", st)
	}
	if most := st.PutBytes * 30 / 100; st.ForwardedBytes > most {
		t.Errorf("%d bytes copied forward, of %d put; at most %d", st.ForwardedBytes, st.PutBytes, most)
	}
	want(t, "never used", tier, false, 1, 2, 3)
	want(t, "the newest", tier, true, n-1, n-2, n-3)
	s.Close()
}

// Nothing is copied forward where nothing may.
func TestNoForward(t *testing.T) {
	o := manual()
	o.ForwardPercent = -1
	s := open(t, t.TempDir(), o)
	for n := range 100 {
		putChunk(t, s.tier(0), n)
		want(t, "just put", s.tier(0), true, n)
	}
	if st := s.Stats(); st.ForwardedBytes != 0 || st.Evicted == 0 {
		t.Errorf("%+v", st)
	}
	s.Close()
}

// Deleted and cleared parts give their space back at once, and what is left of
// a sparse segment moves together.
func TestSparse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	tier := s.tier(0)
	for n := range 18 {
		putChunk(t, tier, n)
	}
	putChunk(t, s.tier(1), 0)
	before := s.Stats()
	for n := range 17 {
		if n%3 != 0 {
			if ok, err := tier.Delete(t.Context(), keyOf(n)); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	}
	after := s.Stats()
	if after.Segments.Used > before.Segments.Used-11*20480 {
		t.Errorf("%d bytes used before, %d after; deleted was more", before.Segments.Used, after.Segments.Used)
	}
	// Settling takes two looks where puts are at work, here one; then one
	// segment is compacted at a time.
	for range 10 {
		s.settleSealed()
		s.compact(t.Context())
	}
	if st := s.Stats(); st.Compacted == 0 || st.ForwardedBytes > st.PutBytes*9/100 {
		t.Errorf("%+v", st)
	}
	want(t, "kept", tier, true, 0, 3, 6, 9, 12, 15, 17)
	want(t, "deleted", tier, false, 1, 2, 4, 5, 7, 16)

	chunks, bytes, err := s.Clear(t.Context(), func(sc storage.Scope) bool { return sc == scopeOf(0) })
	if err != nil || chunks != 7 || bytes != 7*20480 {
		t.Errorf("cleared %d chunks, %d bytes, %v", chunks, bytes, err)
	}
	want(t, "cleared", tier, false, 0, 3, 17)
	want(t, "another tenant's", s.tier(1), true, 0)
	s.Close()
	s = open(t, dir, manual())
	want(t, "cleared, after a restart", s.tier(0), false, 0, 3, 17)
	want(t, "another tenant's, after a restart", s.tier(1), true, 0)
	s.Close()
}

// A clear reaches scopes that nobody has registered since the start.
func TestClearUnregistered(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	putChunk(t, s.tier(0), 1)
	s.Close()
	s = open(t, dir, manual())
	if chunks, _, err := s.Clear(t.Context(), func(storage.Scope) bool { return true }); chunks != 1 || err != nil {
		t.Errorf("%d chunks, %v", chunks, err)
	}
	want(t, "cleared", s.tier(0), false, 1)
	s.Close()
}

// Chunks whose parts do not come are dropped, by time and by number.
func TestIncomplete(t *testing.T) {
	var now atomic.Int64 // seconds
	o := manual()
	o.Segment.Now = func() time.Time { return time.Unix(1000+now.Load(), 0) }
	o.MaxPending, o.PendingTimeout = 3, 30*time.Second
	s := open(t, t.TempDir(), o)
	half := func(n int) {
		t.Helper()
		d, b := one(t, n, 1, 0)
		if out, err := s.tier(0).Put(t.Context(), d, b); err != nil || out != storage.Kept {
			t.Fatal(out, err)
		}
	}
	for n := range 5 {
		half(n)
	}
	if st := s.Stats(); st.Waiting != 3 || st.Incomplete != 2 {
		t.Errorf("%d wait, %d were dropped", st.Waiting, st.Incomplete)
	}
	now.Add(31)
	half(9)
	s.dropLate()
	if st := s.Stats(); st.Waiting != 1 || st.Incomplete != 5 {
		t.Errorf("%d wait, %d were dropped", st.Waiting, st.Incomplete)
	}
	d, b := one(t, 9, 0, 0)
	if out, err := s.tier(0).Put(t.Context(), d, b); err != nil || out != storage.Kept {
		t.Error(out, err)
	}
	s.Close()
}

func TestMatch(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	tier := s.tier(0)
	var list []keys.Key
	for n := range 6 {
		list = append(list, keyOf(n))
		if n != 4 {
			putChunk(t, tier, n)
		}
	}
	if got, quality := tier.Match(list, 0); got != 4 || quality != 0 {
		t.Errorf("%d chunks of quality %d", got, quality)
	}
	if got, _ := tier.Match(list[5:], 0); got != 1 {
		t.Errorf("%d chunks", got)
	}
	if got, _ := s.tier(1).Match(list, 0); got != 0 {
		t.Errorf("%d chunks of another tenant", got)
	}
	s.Close()
	if got, _ := tier.Match(list, 0); got != 0 {
		t.Errorf("%d chunks after close", got)
	}
	d, b := one(t, 0, 0, 0)
	if _, err := tier.Put(context.Background(), d, b); !errors.Is(err, fault.Unavailable) {
		t.Errorf("put after close: %v", err)
	}
	if _, err := tier.Get(context.Background(), d.ID, d, b); !errors.Is(err, fault.Unavailable) {
		t.Errorf("get after close: %v", err)
	}
}

// Another list of parts under the same fingerprint is refused.
func TestLayouts(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	defer s.Close()
	s.tier(0)
	if _, err := s.Store.Tier(scopeOf(1), layout[:2]); !errors.Is(err, fault.Invalid) {
		t.Errorf("another layout: %v", err)
	}
	if _, err := s.Store.Tier(scopeOf(1), nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("no layout: %v", err)
	}
}

// Where the file system is full before the budget is, the tier gives way, and
// says that it was not the budget.
func TestDiskFullIsCounted(t *testing.T) {
	o := manual()
	o.Segment.FS, o.Segment.Reserve, o.IndexFS = simfs.New(512<<10), 64<<10, vfs.NewMem()
	s := open(t, "/tier", o)
	for n := range 60 {
		putChunk(t, s.tier(0), n)
	}
	st := s.Stats()
	if st.DiskFull == 0 || st.DiskFullSegments == 0 || st.Evicted+st.DroppedSegments != 0 || st.Segments.Used > 448<<10 {
		t.Errorf("%+v", st)
	}
	want(t, "the newest", s.tier(0), true, 59, 58, 57)
	want(t, "the oldest", s.tier(0), false, 0, 1, 2)
	s.Close()
}
