package nvme

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// A store that is closed or off has no pins; nobody looks into its tables.
func TestPinClosed(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	tier := s.tier(0)
	putChunk(t, tier.Pinned(), 1)
	pinnedAre(t, "open", tier, true, 1)
	s.mu.Lock()
	s.off = true
	s.mu.Unlock()
	pinnedAre(t, "off", tier, false, 1)
	s.Close()
	pinnedAre(t, "closed", tier, false, 1)
}

// A pinned segment that was empty when eviction chose it stays if it is not any
// more.
func TestPinEnteredMeanwhile(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	defer s.Close()
	tier := s.tier(0)
	putChunk(t, tier.Pinned(), 1)
	must(t, s.segments.Seal(t.Context(), pinned.ID))
	for _, info := range s.segments.Segments() {
		if isPinned(info.Class.ID) {
			must(t, s.dropSegment(info, byBudget))
		}
	}
	want(t, "pinned", tier, true, 1)
	pinnedAre(t, "pinned", tier, true, 1)
}

// Copies in a segment that could not be synced replace nothing, though it was
// another's sync that failed.
func TestMoveToBroken(t *testing.T) {
	fs := simfs.New(64 << 20)
	o := manual()
	o.Segment.FS, o.IndexFS = fs, vfs.NewMem()
	s := open(t, "/tier", o)
	defer s.Close()
	tier := s.tier(0)
	putChunk(t, tier, 1)
	must(t, s.segments.Seal(t.Context(), normal.ID))
	d, _ := one(t, 1, 0, 0)
	from, err := tier.locate(d.ID, false)
	must(t, err)
	to := make([]segment.Location, 1)
	must(t, s.copyParts(t.Context(), segment.Target{Class: pinned}, []found{from}, to))
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "SyncData" {
			return unix.EIO
		}
		return nil
	})
	if err := s.segments.Sync(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("sync: %v", err)
	}
	fs.Inject(nil)
	must(t, s.segments.Sync(t.Context()))
	s.mu.Lock()
	moved := s.relocate(&from, to[0])
	s.mu.Unlock()
	if moved {
		t.Error("a part was moved to where it is not durable")
	}
	want(t, "where it was", tier, true, 1)
}
