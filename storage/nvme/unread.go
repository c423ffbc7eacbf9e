package nvme

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// Unread segments are those that the index does not vouch for and that the device
// did not read at start. Nothing in them is in the directory, but all of it may be
// on the disk, so they are not empty: compaction leaves them alone, and so does
// the index, so that the next start scans them. Eviction takes them in their turn,
// pinned ones last. Chunks that are incomplete without them wait for that start
// too; it has the rules for what is found twice, and nothing here needs others.
//
// What is removed meanwhile must not come back with that start: removals look for
// it there, and fail where the device still does not answer.

// removeUnread punches what which selects out of unread segments. Unavailable:
// one could not be read, and what is to go may lie there.
func (s *Store) removeUnread(ctx context.Context, which func(storage.Scope, keys.Key) bool) error {
	s.mu.Lock()
	list := slices.Sorted(maps.Keys(s.unread))
	s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	// One after the other: nothing may be punched twice.
	if s.removing.Acquire(ctx, 1) != nil {
		return fault.Wrap(fault.Unavailable, ctx.Err(), "nvme", "stopped")
	}
	defer s.removing.Release(1)
	var first error
	var locs []segment.Location
	for _, seq := range list {
		err := s.segments.Scan(ctx, uint64(seq), func(e segment.Entry) error {
			if !e.Punched && which(e.Scope, e.Part.ID.Chunk) {
				locs = append(locs, e.Location)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fault.Miss) && first == nil { // a miss was evicted
			first = fault.Wrap(fault.Unavailable, s.device(err), "nvme.segment", "it cannot be read since the start, and what of it was removed comes back with the next one").With(seq, nil)
		}
	}
	s.punch(locs)
	return first
}
