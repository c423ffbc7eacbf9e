package segment

import "github.com/larderkv/larder/api/fault"

// Stats are gauges, and counters since Open.
type Stats struct {
	Space
	// Segments by state, and what they hold in whole pages: Bytes written, and
	// Live of these.
	Open, Sealed, Broken int
	Bytes, Live          int64
	// Queued parts wait for their turn to be written, and Writing requests to
	// write are with the device; Reading parts wait for their turn to be read or
	// are read. Unsynced bytes are acknowledged and not durable yet.
	Queued, Writing, Reading int
	Unsynced                 int64
	// Direct: the page cache is left out.
	Direct bool

	// AppendedParts and AppendedBytes were acknowledged, in Groups.
	// WrittenBytes went to the device: parts, padding, headers and footers.
	AppendedParts, AppendedBytes, Groups, WrittenBytes int64
	// ReadParts and ReadBytes were returned. HeaderReads were needed beside the
	// parts' own reads, HeaderHits were spared by the cache.
	ReadParts, ReadBytes, HeaderReads, HeaderHits int64
	// Stale reads found another part, or a segment that is gone.
	Stale int64
	// TornParts of the last process were dropped at Open.
	TornParts                                            int64
	Syncs, SealedSegments, DroppedSegments, DroppedBytes int64
	Punches, PunchedBytes, PunchErrors                   int64
	// Errors that callers were told, by kind.
	FullErrors, UnavailableErrors, CorruptErrors, BusyErrors int64
}

// Space is the store's room, in bytes.
type Space struct {
	// Budget of all files, and what they Use.
	Budget, Used int64
	// Free is what the file system has, of which Reserve stays free.
	Free, Reserve int64
	// SegmentBytes is what the next segment needs; Room is what new segments
	// may take.
	SegmentBytes, Room int64
}

// Space measures the room.
func (s *Store) Space() (Space, error) {
	free, err := s.fs.Free(s.dir)
	if err != nil {
		return Space{}, s.fail(err, "space", "the file system cannot be asked")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space(free), nil
}

func (s *Store) space(free int64) Space {
	sp := Space{Budget: s.opt.Budget, Used: s.used, Free: free, Reserve: s.opt.Reserve, SegmentBytes: s.opt.SegmentBytes}
	sp.Room = max(min(sp.Budget-sp.Used, sp.Free-sp.Reserve), 0)
	return sp
}

// Stats returns the figures. Free is -1 if the file system cannot be asked.
func (s *Store) Stats() Stats {
	free, err := s.fs.Free(s.dir)
	if err != nil {
		free = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.count
	st := Stats{
		Space: s.space(free), Direct: s.direct,
		AppendedParts: c.appendedParts.Load(), AppendedBytes: c.appendedBytes.Load(), Groups: c.groups.Load(), WrittenBytes: c.writtenBytes.Load(),
		ReadParts: c.readParts.Load(), ReadBytes: c.readBytes.Load(), HeaderReads: c.headerReads.Load(), HeaderHits: c.headerHits.Load(),
		Stale: c.stale.Load(), TornParts: c.tornParts.Load(),
		Syncs: c.syncs.Load(), SealedSegments: c.sealed.Load(), DroppedSegments: c.dropped.Load(), DroppedBytes: c.droppedBytes.Load(),
		Punches: c.punches.Load(), PunchedBytes: c.punchBytes.Load(), PunchErrors: c.punchErrors.Load(),
		FullErrors: c.faults[fault.Full].Load(), UnavailableErrors: c.faults[fault.Unavailable].Load(), CorruptErrors: c.faults[fault.Corrupt].Load(),
		BusyErrors: c.faults[fault.Busy].Load(), Writing: len(s.writes), Reading: int(c.reading.Load()),
	}
	for _, g := range s.segments {
		switch g.state {
		case StateOpen:
			st.Open++
		case StateSealed:
			st.Sealed++
		default:
			st.Broken++
		}
		st.Bytes += g.bytes
		st.Live += g.live
		if g.w != nil {
			st.Unsynced += g.w.unsynced
		}
	}
	for _, l := range s.lanes {
		st.Queued += len(l.queue)
	}
	return st
}
