package nvme

import (
	"context"
	"time"

	"github.com/larderkv/larder/storage/segment"
)

// keep looks after things once a tick. It begins with what an earlier process may
// have punched and not synced, so that no delete has to.
func (s *Store) keep(ctx context.Context) {
	_ = s.device(s.segments.SyncPunched(ctx)) // counted; a delete tries again
	t := time.NewTicker(s.opt.Tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.dropLate()
			s.settleSealed()
			s.compact(ctx)
		}
	}
}

// dropLate drops chunks whose parts did not come in time.
func (s *Store) dropLate() {
	s.mu.Lock()
	limit := s.opt.Segment.Now().Add(-s.opt.PendingTimeout)
	var locs []segment.Location
	for len(s.waiting) > 0 && s.waiting[0].since.Before(limit) {
		locs = s.dropWaiting(s.waiting[0], locs)
		s.waiting = s.waiting[1:]
	}
	s.mu.Unlock()
	s.punch(locs)
}

// settleSealed marks segments in the index to which nothing will be added any
// more: they are sealed, no part in them waits for others, and every put that
// may have written to them has ended.
func (s *Store) settleSealed() {
	var sealed []uint32
	for _, info := range s.segments.Segments() {
		if info.State == segment.StateSealed {
			sealed = append(sealed, uint32(info.Sequence))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.nextPut
	for n := range s.putting {
		oldest = min(oldest, n)
	}
	for _, seq := range sealed {
		seg := s.dir.segments[seq]
		if seg == nil || seg.settled {
			continue
		}
		if !seg.sealed {
			seg.sealed, seg.sealedAt = true, s.nextPut
		}
		if seg.pending == 0 && oldest >= seg.sealedAt {
			seg.settled = true
			s.index.Settled(uint64(seq))
		}
	}
}

// sparse segments are a quarter alive or less.
const sparse = 4

// compact copies what is left of one sparse segment forward, within what was
// earned, and drops it. One that has to stay keeps no other from it.
func (s *Store) compact(ctx context.Context) {
	for _, info := range s.segments.Segments() {
		s.mu.Lock()
		seg := s.dir.segments[uint32(info.Sequence)]
		due := false
		switch {
		case info.State == segment.StateOpen, s.unread[uint32(info.Sequence)]:
		case seg == nil || seg.parts == 0: // and nobody is about to enter one
			due = len(s.putting) == 0
		case seg.settled:
			due = seg.live*sparse < info.Bytes && seg.live <= s.earned
		}
		s.mu.Unlock()
		if due && s.room.TryLock() {
			kept := s.compactOne(ctx, info)
			s.room.Unlock()
			if !kept {
				return
			}
		}
	}
}

// compactOne says that it kept the segment, since there is something in it that
// cannot be copied: of a namespace that nobody has registered since the start.
func (s *Store) compactOne(ctx context.Context, info segment.Info) (kept bool) {
	number := s.begin()
	defer s.end(number)
	if err := s.forward(ctx, info, false); err != nil {
		return false
	}
	s.mu.Lock()
	seg := s.dir.segments[uint32(info.Sequence)]
	kept = seg != nil && seg.parts > 0
	s.mu.Unlock()
	if !kept {
		_ = s.dropSegment(info, bySparse) // counted
	}
	return kept
}
