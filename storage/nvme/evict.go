package nvme

import (
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
)

// ahead drops the oldest segment before the last room is taken, so that chunks
// that are copied forward find some. It does not wait for others who do.
func (s *Store) ahead(ctx context.Context) {
	sp, err := s.segments.Space()
	if err != nil || sp.Room >= sp.SegmentBytes || !s.room.TryLock() {
		return
	}
	defer s.room.Unlock()
	// What goes wrong here, the write that follows meets as well.
	_ = s.evict(ctx, cause(&sp), false)
}

// dropCause is why a segment is dropped.
type dropCause uint8

const (
	byBudget dropCause = iota
	// byDisk: the file system had no room left, though the budget did.
	byDisk
	// bySparse: little in it was left.
	bySparse
)

func cause(sp *segment.Space) dropCause {
	if sp.Budget-sp.Used >= sp.SegmentBytes {
		return byDisk
	}
	return byBudget
}

// dropped counts a segment and the chunks that went with it. The caller holds
// mu.
func (s *Store) dropped(why dropCause, chunks uint64) {
	switch why {
	case byBudget:
		s.st.DroppedSegments++
		s.st.Evicted += chunks
	case byDisk:
		s.st.DiskFullSegments++
		s.st.DiskFull += chunks
	case bySparse:
		s.st.Compacted++
		s.st.Evicted += chunks
	}
}

// makeRoom drops the oldest segment, unless somebody else made room meanwhile.
// force: there was room and the device did not agree.
func (s *Store) makeRoom(ctx context.Context, force bool) error {
	s.room.Lock()
	defer s.room.Unlock()
	sp, err := s.segments.Space()
	if err != nil {
		return s.device(err)
	}
	if sp.Room >= sp.SegmentBytes && !force {
		return nil
	}
	return s.evict(ctx, cause(&sp), true)
}

// evictable segments hold no pins: of pinned ones those of which nothing is left
// but headers, and where there is nothing else, those that are unread too. Spared
// ones are another matter.
func (s *Store) evictable(info segment.Info, nothingElse bool) bool {
	if !isPinned(info.Class.ID) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := s.dir.segments[uint32(info.Sequence)]
	return (seg == nil || seg.parts == 0) && (nothingElse || !s.unread[uint32(info.Sequence)])
}

// evictTries: what is there, what a sync seals, and what is sealed early.
const evictTries = 3

// evict drops the oldest sealed segment that is evictable and not spared. now: a
// write waits for it, and rather than spared ones those go that are open. The
// caller holds room.
func (s *Store) evict(ctx context.Context, why dropCause, now bool) error {
	number := s.begin()
	defer s.end(number)
	spared := s.sparedSegments()
	passed := 0
	for tries := range evictTries {
		for _, info := range s.segments.Segments() {
			switch {
			case info.State == segment.StateOpen || !s.evictable(info, tries == evictTries-1):
			case spared[uint32(info.Sequence)]:
				passed++
			default:
				if err := s.forward(ctx, info, true); ctx.Err() != nil {
					return err
				}
				return s.dropSegment(info, why)
			}
		}
		if passed > 0 && !now {
			break
		}
		// The oldest are full and wait to be sealed, or the budget is so small that
		// everything is in open segments.
		err := error(nil)
		if tries == 0 {
			err = s.segments.Sync(ctx)
		} else {
			err = errors.Join(s.segments.Seal(ctx, normal.ID), s.segments.Seal(ctx, pinned.ID))
		}
		if err != nil {
			return s.device(err)
		}
	}
	if sp, err := s.segments.Space(); err == nil && now && sp.Room >= sp.SegmentBytes {
		return nil // what was sealed takes less
	}
	left := "pinned"
	if passed > 0 {
		left = "pinned or just about to be"
	}
	return fault.New(fault.Full, "nvme.budget", "there is no segment to drop: what is left is %s", left).With(s.opt.Segment.Budget, nil)
}

// dropSegment drops the file and what is in it, and counts that. Chunks with a
// part in it go whole.
func (s *Store) dropSegment(info segment.Info, why dropCause) error {
	seq := uint32(info.Sequence)
	s.mu.Lock()
	if seg := s.dir.segments[seq]; isPinned(info.Class.ID) && seg != nil && seg.parts > 0 {
		s.mu.Unlock()
		return nil // pins were entered since it was chosen
	}
	s.dropping[seq] = true
	var locs []segment.Location
	chunks := uint64(0)
	for {
		seg := s.dir.segments[seq]
		for n := 0; n < dropBatch && seg != nil && seg.first != 0; n++ {
			chunk := s.dir.parts.all[seg.first].chunk
			if s.dir.chunks.all[chunk].state == chunkVisible {
				chunks++
			}
			locs = s.forget(chunk, locs)
		}
		if seg == nil || seg.first == 0 {
			break
		}
		s.mu.Unlock() // others have a turn
		s.mu.Lock()
	}
	delete(s.dir.segments, seq)
	delete(s.unread, seq)
	s.index.RemoveSegment(info.Sequence)
	s.dropped(why, chunks)
	s.mu.Unlock()

	_, err := s.segments.Drop(info.Sequence)
	s.mu.Lock()
	delete(s.dropping, seq)
	s.mu.Unlock()
	if locs = slices.DeleteFunc(locs, func(l segment.Location) bool { return l.Segment == info.Sequence }); len(locs) > 0 {
		// Should the file come back, its entries must not, without these parts.
		_ = s.release(context.Background(), locs) // what is not punched goes with its segment
	}
	if errors.Is(err, fault.Miss) {
		return nil
	}
	return s.device(err)
}

// forward copies parts out of a segment: of chunks that were used, as far as
// bytes have been earned, most used first; or of all chunks, and then gives back
// what they took, since the segment may stay. What finds no room stays, and is
// Full. A chunk with a part that is damaged goes.
func (s *Store) forward(ctx context.Context, info segment.Info, hotOnly bool) error {
	wanted := s.choose(uint32(info.Sequence), hotOnly)
	if len(wanted) == 0 {
		return nil
	}
	defer func() { s.unearned(wanted) }()
	var moves []segment.Move
	var from []found
	err := s.segments.Scan(ctx, info.Sequence, func(e segment.Entry) error {
		if f, ok := wanted[e.Location]; ok {
			f.claim = segment.Claim{Scope: e.Scope, ID: e.Part.ID, Checksum: e.Part.Checksum}
			from, moves = append(from, f), append(moves, f.move())
		}
		return nil
	})
	if err != nil {
		return s.device(err)
	}
	to := make([]segment.Location, len(moves))
	err = s.segments.CopyForward(ctx, segment.Target{Class: classOf(info)}, moves, func(i int, l segment.Location, err error) {
		if to[i] = l; err == nil {
			delete(wanted, moves[i].From)
		}
		if errors.Is(err, fault.Corrupt) || errors.Is(err, fault.Miss) {
			_ = s.answered(&from[i], err) // counted
		}
	})
	// Copies are durable before what they replace goes: a power cut must not take
	// what was safe before.
	if syncErr := s.segments.Sync(ctx); syncErr != nil {
		s.punch(slices.DeleteFunc(to, segment.Location.IsZero))
		return s.device(syncErr)
	}
	var locs []segment.Location
	for i := range moves {
		switch {
		case to[i].IsZero():
		case !s.moved(&from[i], to[i]):
			locs = append(locs, to[i])
		case !hotOnly:
			locs = append(locs, moves[i].From)
		}
	}
	if err := s.release(ctx, locs); err != nil {
		return err
	}
	return s.device(err)
}

// unearned gives back the share of what was not written.
func (s *Store) unearned(left map[segment.Location]found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range left {
		s.earned += l.Footprint()
	}
}

// choose returns the parts to copy, by where they lie.
func (s *Store) choose(seq uint32, hotOnly bool) map[segment.Location]found {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := s.dir.segments[seq]
	if seg == nil {
		return nil
	}
	type candidate struct {
		rec  uint32
		uses uint8
	}
	var all []candidate
	for rec := seg.first; rec != 0; rec = s.dir.parts.all[rec].after {
		if c := &s.dir.chunks.all[s.dir.parts.all[rec].chunk]; c.state == chunkVisible && (c.uses > 0 || !hotOnly) {
			all = append(all, candidate{rec, c.uses})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return int(b.uses) - int(a.uses) })
	wanted := map[segment.Location]found{}
	for _, c := range all {
		p := &s.dir.parts.all[c.rec]
		l := p.location()
		if s.earned < l.Footprint() {
			break
		}
		s.earned -= l.Footprint()
		wanted[l] = found{chunk: p.chunk, gen: s.dir.chunks.all[p.chunk].gen, part: c.rec, location: l}
	}
	return wanted
}

// moved notes a part's new place, if it still is where it was.
func (s *Store) moved(f *found, to segment.Location) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.relocate(f, to) {
		return false
	}
	s.st.ForwardedBytes += to.Footprint()
	return true
}

// relocate enters a part's new place, in memory and in the index, if the part
// still is where it was and the place is not about to go. The caller holds mu.
func (s *Store) relocate(f *found, to segment.Location) bool {
	p := &s.dir.parts.all[f.part]
	if p.location() != f.location || p.checksum != f.claim.Checksum || p.chunk == 0 {
		return false
	}
	// One that is broken may not be on the device: a sync that failed says so to
	// whoever was first to ask.
	if info, there := s.segments.Segment(to.Segment); !there || info.State == segment.StateBroken || s.dropping[uint32(to.Segment)] {
		return false
	}
	s.index.Remove(f.location)
	s.dir.move(f.part, to)
	s.index.Add(s.entry(p, f.claim.ID.Chunk))
	s.dir.chunks.all[p.chunk].uses = 0 // it has to be used again to be copied again
	return true
}

// classOf is the class in which parts of the segment stay when they are copied.
func classOf(info segment.Info) segment.Class {
	if isPinned(info.Class.ID) {
		return pinned
	}
	return normal
}
