package arena

// adoptSlot marks a slot as used by rec, making its slab if needed. It says no
// to a slot that is not on a boundary of its class, outside the arena, or in
// the way of what was adopted before. The values come from a predecessor's
// memory.
func (s *space) adoptSlot(segment uint16, segPage, class, rec uint32) bool {
	order, ok := s.g.order(class)
	if !ok {
		return false
	}
	page, ok := s.page(segment, uint64(segPage)*PageBytes)
	if !ok {
		return false
	}
	unit := page / s.g.unitPages
	start := unit &^ (1<<order - 1)
	if start+1<<order > s.g.units {
		return false
	}
	offset := page - start*s.g.unitPages
	if offset%class != 0 || offset/class >= s.g.runPages(order)/class {
		return false
	}
	i := s.slabOf[start]
	for u := start; u < start+1<<order; u++ {
		if s.slabOf[u] != i {
			return false
		}
	}
	if i == 0 {
		i = s.makeSlab(start, order, class) + 1
	}
	sl := &s.slabs[i-1]
	if sl.class != class || sl.unit != start || s.refs.All()[page] != 0 {
		return false
	}
	s.refs.All()[page] = rec
	sl.used++
	s.usedPages += int64(class)
	return true
}

// unadoptSlot takes adoptSlot back, before adoptSlabs.
func (s *space) unadoptSlot(segment uint16, segPage, class uint32) {
	page, _ := s.page(segment, uint64(segPage)*PageBytes)
	s.slabs[s.slabOf[page/s.g.unitPages]-1].used--
	s.refs.All()[page] = 0
	s.usedPages -= int64(class)
}

// adoptSlabs chains the free slots of adopted slabs. freeAll comes before it,
// so that the runs of slabs that stayed empty are freed once.
func (s *space) adoptSlabs() {
	refs := s.refs.All()
	for i := range s.slabs {
		sl := &s.slabs[i]
		switch {
		case sl.used == 0:
			s.dropSlab(uint32(i))
			continue
		case sl.used == sl.slots:
			s.unlist(uint32(i))
		}
		sl.carved = sl.slots
		for slot := sl.slots; slot > 0; slot-- {
			page := sl.unit*s.g.unitPages + (slot-1)*sl.class
			if refs[page] == 0 {
				refs[page] = freeBit | sl.free
				sl.free = slot
			}
		}
	}
}
