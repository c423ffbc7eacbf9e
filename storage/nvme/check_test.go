package nvme

import "fmt"

// checkTables recomputes what the directory keeps incrementally.
func (s *Store) checkTables() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dir
	type sum struct {
		parts, pending int
		live           int64
	}
	sums := map[uint32]*sum{}
	pins := int64(0)
	chunks, parts, visible, pending := 0, 0, 0, 0
	for rec := uint32(1); rec < d.chunks.high; rec++ {
		c := &d.chunks.all[rec]
		if c.state == chunkFree {
			continue
		}
		chunks++
		have, last := 0, int64(-1)
		for p := c.first; p != 0; p = d.parts.all[p].next {
			r := &d.parts.all[p]
			if r.chunk != rec || int64(r.id) <= last {
				return fmt.Errorf("chunk %d: part %d belongs to chunk %d, or is out of order", rec, p, r.chunk)
			}
			last = int64(r.id)
			have++
			if sums[r.segment] == nil {
				sums[r.segment] = &sum{}
			}
			sums[r.segment].parts++
			sums[r.segment].live += r.location().Footprint()
			if c.state == chunkPending {
				sums[r.segment].pending++
			}
		}
		if have != int(c.have) {
			return fmt.Errorf("chunk %d has %d parts, counted %d", rec, c.have, have)
		}
		parts += have
		switch c.state {
		case chunkVisible:
			visible++
			if sc := s.scopes[c.scope]; !s.complete(sc, c) || s.sibling(rec) != rec {
				return fmt.Errorf("chunk %d is visible and incomplete, or hidden", rec)
			}
		case chunkPending:
			pending++
			if s.assemblies[rec] == nil {
				return fmt.Errorf("chunk %d is incomplete and nobody waits for it", rec)
			}
		}
	}
	if chunks != d.chunks.used || chunks != d.index.Len || parts != d.parts.used || visible != s.st.Chunks || pending != len(s.assemblies) {
		return fmt.Errorf("%d chunks (%d used, %d in the index), %d parts (%d used), %d visible (%d counted), %d incomplete (%d)",
			chunks, d.chunks.used, d.index.Len, parts, d.parts.used, visible, s.st.Chunks, pending, len(s.assemblies))
	}
	for seq, seg := range d.segments {
		got := sums[seq]
		if got == nil {
			got = &sum{}
		}
		listed := 0
		for p, before := seg.first, uint32(0); p != 0; p = d.parts.all[p].after {
			if d.parts.all[p].segment != seq || d.parts.all[p].before != before {
				return fmt.Errorf("segment %d: part %d is not its own", seq, p)
			}
			before = p
			listed++
		}
		if info, ok := s.segments.Segment(uint64(seq)); ok && seg.pinned != isPinned(info.Class.ID) {
			return fmt.Errorf("segment %d of class %v: pinned is %v", seq, info.Class, seg.pinned)
		}
		if seg.pinned {
			pins += seg.live
		}
		if seg.parts != got.parts || listed != got.parts || seg.pending != got.pending || seg.live != got.live {
			return fmt.Errorf("segment %d: %+v, counted %+v, listed %d", seq, *seg, *got, listed)
		}
		if info, ok := s.segments.Segment(uint64(seq)); ok && info.Live != seg.live {
			// Punches run outside of the mutex: only at rest are they equal.
			if len(s.putting) == 0 {
				return fmt.Errorf("segment %d: %d bytes are alive, the file says %d", seq, seg.live, info.Live)
			}
		}
	}
	if d.pinned != pins || s.pinning != 0 {
		return fmt.Errorf("%d bytes are pinned, counted %d; %d on their way", d.pinned, pins, s.pinning)
	}
	return nil
}
