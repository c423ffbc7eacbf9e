package arena

import "github.com/larderkv/larder/storage/internal/offheap"

// freeBit marks a page reference that is a link in a slab's free list; the low
// bits are the next free slot's index + 1. Without it, and not 0, the value is
// the record that uses the slot which starts at this page. Pages inside a slot
// hold 0 or an old free link, never a record: a slot in use is found only by
// its exact start.
const freeBit = 1 << 31

// slab is a run cut into slots of one class.
type slab struct {
	unit  uint32
	class uint32 // pages of a slot; 0 = this slab structure is unused
	slots uint32
	used  uint32
	// carved slots were given out at least once; those that are free again are
	// chained from free (index+1). Fresh slabs so cost nothing to make.
	carved uint32
	free   uint32
	// Links among the slabs of the class that have room, index+1.
	prev, next uint32
	order      uint8
}

// class is one slot size.
type class struct {
	partial uint32 // slabs with room, index+1
	slabs   uint32
	// missed is the arena's release counter at the last search for room that
	// found none.
	missed uint64
}

// space cuts segments into slots: the arena itself, or one owner's write
// segment. The arena's lock guards it.
type space struct {
	g         geometry
	firstID   uint16   // id of mem[0]
	mem       [][]byte // segments
	runs      *runs
	slabOf    []uint32 // unit -> slab+1, for every unit of the run
	slabs     []slab
	idle      []uint32 // unused slab structures
	classes   map[uint32]*class
	refs      *offheap.Array[uint32] // page -> see freeBit
	usedPages int64
}

func newSpace(g geometry, firstID uint16, mem [][]byte) (*space, error) {
	refs, err := offheap.Map[uint32](int(g.units) * int(g.unitPages))
	if err != nil {
		return nil, err
	}
	return &space{
		g: g, firstID: firstID, mem: mem, runs: newRuns(g), refs: refs,
		slabOf: make([]uint32, g.units), classes: map[uint32]*class{},
	}, nil
}

// freeAll puts every unit that no slab has into the free store.
func (s *space) freeAll() {
	for u := range s.g.units {
		if s.slabOf[u] == 0 {
			s.runs.put(u, 0)
		}
	}
}

// page turns a slot's place into a page number. ok is false for places that do
// not exist; the arguments may come from a client.
func (s *space) page(segment uint16, offset uint64) (page uint32, ok bool) {
	i := int(segment) - int(s.firstID)
	if i < 0 || i >= len(s.mem) || offset%PageBytes != 0 || offset >= uint64(len(s.mem[i])) {
		return 0, false
	}
	page = uint32(i)*s.g.segPages() + uint32(offset/PageBytes)
	return page, int(page) < len(s.refs.All())
}

// place is the inverse of page.
func (s *space) place(page uint32) (segment uint16, offset uint64) {
	return s.firstID + uint16(page/s.g.segPages()), uint64(page%s.g.segPages()) * PageBytes
}

// bytes are the first n bytes of the slot at page.
func (s *space) bytes(page, n uint32) []byte {
	segment, offset := s.place(page)
	return s.mem[segment-s.firstID][offset : offset+uint64(n) : offset+uint64(n)]
}

// user is the record that uses the slot starting at page, or 0.
func (s *space) user(page uint32) uint32 {
	ref := s.refs.All()[page]
	if ref&freeBit != 0 {
		return 0
	}
	return ref
}

func (s *space) class(pages uint32) *class {
	c := s.classes[pages]
	if c == nil {
		c = &class{}
		s.classes[pages] = c
	}
	return c
}

// alloc gives rec a slot of the class from free memory.
func (s *space) alloc(pages, rec uint32) (page uint32, ok bool) {
	c := s.class(pages)
	if c.partial == 0 {
		order, ok := s.g.order(pages)
		if !ok {
			return 0, false
		}
		unit, ok := s.runs.take(order)
		if !ok {
			return 0, false
		}
		s.makeSlab(unit, order, pages)
	}
	i := c.partial - 1
	sl := &s.slabs[i]
	refs := s.refs.All()
	slot := sl.carved
	if sl.free != 0 {
		slot = sl.free - 1
	}
	page = sl.unit*s.g.unitPages + slot*pages
	if sl.free != 0 {
		sl.free = refs[page] &^ freeBit
	} else {
		sl.carved++
	}
	refs[page] = rec
	sl.used++
	if sl.used == sl.slots {
		s.unlist(i)
	}
	s.usedPages += int64(pages)
	return page, true
}

// free takes the slot at page back; the run of an emptied slab is free for any
// class.
func (s *space) free(page uint32) {
	i := s.slabOf[page/s.g.unitPages] - 1
	sl := &s.slabs[i]
	slot := (page - sl.unit*s.g.unitPages) / sl.class
	s.refs.All()[page] = freeBit | sl.free
	sl.free = slot + 1
	if sl.used == sl.slots {
		s.list(i)
	}
	sl.used--
	s.usedPages -= int64(sl.class)
	if sl.used == 0 {
		s.dropSlab(i)
	}
}

func (s *space) makeSlab(unit uint32, order int, pages uint32) uint32 {
	i := uint32(len(s.slabs))
	if n := len(s.idle); n > 0 {
		i, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		s.slabs = append(s.slabs, slab{})
	}
	s.slabs[i] = slab{unit: unit, class: pages, order: uint8(order), slots: s.g.runPages(order) / pages}
	for u := range uint32(1) << order {
		s.slabOf[unit+u] = i + 1
	}
	s.class(pages).slabs++
	s.list(i)
	return i
}

func (s *space) dropSlab(i uint32) {
	sl := &s.slabs[i]
	s.unlist(i)
	for u := range uint32(1) << sl.order {
		s.slabOf[sl.unit+u] = 0
	}
	c := s.classes[sl.class]
	if c.slabs--; c.slabs == 0 {
		delete(s.classes, sl.class)
	}
	unit, order := sl.unit, int(sl.order)
	*sl = slab{}
	s.idle = append(s.idle, i)
	s.runs.put(unit, order)
}

func (s *space) list(i uint32) {
	c, sl := s.classes[s.slabs[i].class], &s.slabs[i]
	sl.prev, sl.next = 0, c.partial
	if c.partial != 0 {
		s.slabs[c.partial-1].prev = i + 1
	}
	c.partial = i + 1
}

func (s *space) unlist(i uint32) {
	c, sl := s.classes[s.slabs[i].class], &s.slabs[i]
	if sl.prev != 0 {
		s.slabs[sl.prev-1].next = sl.next
	} else {
		c.partial = sl.next
	}
	if sl.next != 0 {
		s.slabs[sl.next-1].prev = sl.prev
	}
	sl.prev, sl.next = 0, 0
}

// users calls f for each record that uses a slot of slab i until f says false.
func (s *space) users(i uint32, f func(rec uint32) bool) bool {
	sl := &s.slabs[i]
	for slot := range sl.carved {
		if rec := s.user(sl.unit*s.g.unitPages + slot*sl.class); rec != 0 && !f(rec) {
			return false
		}
	}
	return true
}

// slabsIn calls f for each slab that has units in the run of the given order
// around unit, until f says false.
func (s *space) slabsIn(unit uint32, order int, f func(i uint32) bool) bool {
	start := unit &^ (1<<order - 1)
	end := min(start+1<<order, s.g.units)
	for u := start; u < end; u++ {
		if i := s.slabOf[u]; i != 0 {
			if !f(i - 1) {
				return false
			}
			u = s.slabs[i-1].unit + 1<<s.slabs[i-1].order - 1
		}
	}
	return true
}

// metadata is the memory that the space's tables use, about.
func (s *space) metadata() int64 {
	return int64(s.g.units)*13 + int64(cap(s.slabs))*44 + 4*int64(s.g.units)*int64(s.g.unitPages)
}

func (s *space) close() error { return s.refs.Close() }
