package arena

import (
	"fmt"
	"math/bits"
)

// checkTables recomputes everything that the arena keeps incrementally and
// returns what does not fit: slots that overlap, lists and counters that
// disagree with the entries, index entries without chunk, free memory lost.
func checkTables(a *Arena) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := checker{a: a, inUse: map[uint32]uint32{}}
	for _, f := range []func() error{c.records, c.index, c.space, c.owners} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	a *Arena
	// inUse: page -> record, for every page of every slot.
	inUse map[uint32]uint32
	used  int64
	heads []uint32
}

func (c *checker) records() error {
	a := c.a
	var free, usedRecs uint32
	var listed, pending, visible, parts int
	var pendingPages int64
	for rec := a.recFree; rec != 0; rec = a.ent[rec].next {
		if a.ent[rec].state != stFree {
			return fmt.Errorf("record %d on the free list has state %d", rec, a.ent[rec].state)
		}
		if free++; free > a.recHigh {
			return fmt.Errorf("free list of records has a cycle")
		}
	}
	for rec := uint32(1); rec < a.recHigh; rec++ {
		e, r := &a.ent[rec], &a.side.recs[rec]
		if e.state == stFree {
			if r.kind() != kindFree {
				return fmt.Errorf("free record %d has kind %#x", rec, r.kind())
			}
			continue
		}
		usedRecs++
		if r.kind() != kindFree && !r.sound(rec) {
			return fmt.Errorf("record %d (kind %#x) does not match its checksum", rec, r.kind())
		}
		if e.state == stMeta || r.segment == WriteSegment {
			continue
		}
		if e.gen == 0 {
			return fmt.Errorf("record %d has a slot and no generation", rec)
		}
		page := a.pageOf(rec)
		if a.space.user(page) != rec {
			return fmt.Errorf("record %d is not the user of its slot", rec)
		}
		for p := page; p < page+r.class; p++ {
			if other := c.inUse[p]; other != 0 {
				return fmt.Errorf("records %d and %d share page %d", other, rec, p)
			}
			c.inUse[p] = rec
		}
		c.used += int64(r.class)
		switch e.state {
		case stListed, stPublished:
			c.heads = append(c.heads, rec)
			visible++
			n, last := 0, int64(-1)
			for m := rec; m != 0; m = a.ent[m].next {
				if m != rec && (a.ent[m].state != stMember || a.ent[m].link != rec) {
					return fmt.Errorf("record %d is not a member of %d", m, rec)
				}
				if id := int64(a.side.recs[m].id()); id <= last {
					return fmt.Errorf("parts of chunk %d do not ascend", rec)
				} else {
					last = id
				}
				if a.side.recs[m].kind() != kindPart {
					return fmt.Errorf("visible record %d has kind %#x", m, a.side.recs[m].kind())
				}
				n++
			}
			if n != r.parts() {
				return fmt.Errorf("chunk %d is visible with %d of %d parts", rec, n, r.parts())
			}
			parts += n
			if e.state == stListed {
				listed++
				if e.link != 0 {
					return fmt.Errorf("chunk %d is held and evictable", rec)
				}
			} else if e.link == 0 && e.count == 0 {
				return fmt.Errorf("chunk %d has no pin and is not evictable", rec)
			}
		case stPending:
			c.heads = append(c.heads, rec)
			pending++
			pendingPages += a.chunkPages(rec)
			if int(e.count) >= r.parts() {
				return fmt.Errorf("chunk %d is complete and not visible", rec)
			}
		case stDoomed, stRotten:
			if e.count == 0 {
				return fmt.Errorf("dropped chunk %d has no lease and was not freed", rec)
			}
		}
	}
	switch {
	case free+usedRecs != a.recHigh-1:
		return fmt.Errorf("%d records free and %d used of %d", free, usedRecs, a.recHigh-1)
	case usedRecs != a.recUsed:
		return fmt.Errorf("%d records used, counted %d", usedRecs, a.recUsed)
	case listed != a.policy.Len():
		return fmt.Errorf("%d evictable chunks, the policy has %d", listed, a.policy.Len())
	case pending != a.pending.chunk || pendingPages != a.pending.pages:
		return fmt.Errorf("%d assembling chunks with %d pages, counted %d with %d", pending, pendingPages, a.pending.chunk, a.pending.pages)
	case visible != a.st.Chunks || parts != a.st.Parts:
		return fmt.Errorf("%d chunks with %d parts, counted %d with %d", visible, parts, a.st.Chunks, a.st.Parts)
	case c.used != a.space.usedPages:
		return fmt.Errorf("%d pages used, counted %d", c.used, a.space.usedPages)
	case c.used > int64(a.space.g.units)*int64(a.space.g.unitPages):
		return fmt.Errorf("budget exceeded: %d pages", c.used)
	}
	return nil
}

func (c *checker) index() error {
	a := c.a
	n := 0
	for _, e := range a.index.Tab {
		if e.Rec != 0 {
			n++
		}
	}
	if n != a.index.Len || n != len(c.heads) {
		return fmt.Errorf("index has %d entries, counted %d, for %d chunks", n, a.index.Len, len(c.heads))
	}
	for _, head := range c.heads {
		r := &a.side.recs[head]
		if a.lookup(a.index.Hash(r.key[:]), &r.key, scopeOf(r), func(e *entry) bool { return e == &a.ent[head] }) != head {
			return fmt.Errorf("chunk %d is not found by its key", head)
		}
	}
	return nil
}

func (c *checker) space() error {
	s := c.a.space
	refs := s.refs.All()
	units := uint32(0)
	for o := range s.runs.head {
		for u := s.runs.head[o]; u != 0; u = s.runs.next[u-1] {
			units += 1 << o
			for i := u - 1; i < u-1+1<<o; i++ {
				if s.slabOf[i] != 0 {
					return fmt.Errorf("unit %d is free and in a slab", i)
				}
			}
			if buddy := (u - 1) ^ 1<<o; o < s.g.maxOrder && buddy < s.g.units && s.runs.order[buddy] == int8(o) {
				return fmt.Errorf("free buddies %d and %d of order %d are not joined", u-1, buddy, o)
			}
		}
	}
	for i := range s.slabs {
		sl := &s.slabs[i]
		if sl.class == 0 {
			continue
		}
		units += 1 << sl.order
		used, free := uint32(0), uint32(0)
		s.users(uint32(i), func(uint32) bool { used++; return true })
		for f := sl.free; f != 0 && free <= sl.slots; free++ {
			f = refs[sl.unit*s.g.unitPages+(f-1)*sl.class] &^ freeBit
		}
		if used != sl.used || used == 0 || used+free != sl.carved || sl.carved > sl.slots {
			return fmt.Errorf("slab %d: %d used (counted %d), %d free, %d carved of %d", i, used, sl.used, free, sl.carved, sl.slots)
		}
	}
	if units != s.g.units {
		return fmt.Errorf("%d of %d units are free or in slabs", units, s.g.units)
	}
	for class, cl := range s.classes {
		n := uint32(0)
		for i := cl.partial; i != 0; i = s.slabs[i-1].next {
			if sl := &s.slabs[i-1]; sl.class != class || sl.used == sl.slots {
				return fmt.Errorf("slab %d is wrongly listed as having room", i-1)
			}
			n++
		}
		for i := range s.slabs {
			if sl := &s.slabs[i]; sl.class == class && sl.used < sl.slots {
				n--
			}
		}
		if n != 0 {
			return fmt.Errorf("class %d: slabs with room are not listed", class)
		}
	}
	return nil
}

func (c *checker) owners() error {
	a := c.a
	leases := map[uint32]uint16{}
	for _, o := range a.owners {
		n := 0
		for rec := o.live.head; rec != 0; rec = a.ent[rec].next {
			n++
			if a.ent[rec].state != stGranted || a.side.recs[rec].owner() != o.id {
				return fmt.Errorf("record %d is not granted to %d", rec, o.id)
			}
		}
		if n != o.live.n {
			return fmt.Errorf("owner %d has %d grants, counted %d", o.id, n, o.live.n)
		}
		for rec := range o.revoked {
			if a.ent[rec].state != stRevoked || a.side.recs[rec].owner() != o.id {
				return fmt.Errorf("record %d is not revoked from %d", rec, o.id)
			}
		}
		for _, l := range o.loads {
			for _, ref := range l.chunks {
				if !a.current(ref) {
					return fmt.Errorf("owner %d leases a chunk that is gone", o.id)
				}
				leases[ref.Index]++
			}
		}
	}
	for rec := uint32(1); rec < a.recHigh; rec++ {
		switch e := &a.ent[rec]; e.state {
		case stListed, stPublished, stDoomed, stRotten:
			if e.count != leases[rec] {
				return fmt.Errorf("chunk %d has %d leases, counted %d", rec, leases[rec], e.count)
			}
		}
	}
	return nil
}

// checkEmpty says whether everything came back: only names are left, and all
// memory is in as few runs as it can be.
func checkEmpty(a *Arena) error {
	if err := checkTables(a); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	names := uint32(0)
	for _, of := range a.names.of {
		for _, n := range of {
			if n.rec != 0 {
				names++
			}
		}
	}
	g, runs := a.space.g, 0
	for _, h := range a.space.runs.head {
		for u := h; u != 0; u = a.space.runs.next[u-1] {
			runs++
		}
	}
	least := int(g.units/g.unitsPerSeg) + bits.OnesCount32(g.units%g.unitsPerSeg)
	if a.recUsed != names || a.space.usedPages != 0 || len(a.owners) != 0 || runs != least || a.writeBytes != 0 {
		return fmt.Errorf("left: %d records beside %d names, %d pages, %d owners, %d free runs (least %d), %d bytes of write segments",
			a.recUsed-names, names, a.space.usedPages, len(a.owners), runs, least, a.writeBytes)
	}
	return nil
}
