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
// earned, and drops it.
func (s *Store) compact(ctx context.Context) {
	for _, info := range s.segments.Segments() {
		s.mu.Lock()
		seg := s.dir.segments[uint32(info.Sequence)]
		due := false
		switch {
		case info.State == segment.StateOpen:
		case seg == nil || seg.parts == 0: // and nobody is about to enter one
			due = len(s.putting) == 0
		case seg.settled:
			due = seg.live*sparse < info.Bytes && seg.live <= s.earned
		}
		s.mu.Unlock()
		if due && s.room.TryLock() {
			s.compactOne(ctx, info)
			s.room.Unlock()
			return
		}
	}
}

// compactOne keeps a segment from which not everything could be copied.
func (s *Store) compactOne(ctx context.Context, info segment.Info) {
	if err := s.forward(ctx, info, false); err != nil {
		return
	}
	s.mu.Lock()
	seg := s.dir.segments[uint32(info.Sequence)]
	left := seg != nil && seg.parts > 0
	s.mu.Unlock()
	if !left {
		_ = s.dropSegment(info, bySparse) // counted
	}
}
