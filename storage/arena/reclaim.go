package arena

// candidates is how many of the coldest chunks are considered before a search
// through all slabs.
const candidates = 64

// reclaim drops chunks so that a slot of the class can be allocated, or says
// that it cannot be done. Each success makes the room that is asked for, or
// drops an assembling chunk; so a caller that repeats it ends. by is told to
// the observer.
func (a *Arena) reclaim(class uint32, by Requester) bool {
	// Chunks that wait for parts of a dead rank must not flush the cache.
	if a.pending.pages*4 > int64(a.space.g.units)*int64(a.space.g.unitPages) {
		if head, _ := a.oldest(); head != 0 {
			a.drop(head, Pending, Cause{"too much memory waits for missing parts", by})
			return true
		}
	}
	c := a.space.class(class)
	if a.policy.Len() == 0 || c.missed == a.releases+1 {
		return false
	}
	order, ok := a.space.g.order(class)
	if !ok {
		return false
	}
	var cold [candidates]uint32
	victims := cold[:a.policy.Coldest(cold[:])]
	cause := Cause{"its room was needed", by}
	for _, head := range victims {
		if a.evictable(head) && a.hasClass(head, class) {
			a.drop(head, Evicted, cause)
			return true
		}
	}
	last := ^uint32(0)
	for _, head := range victims {
		for rec := head; rec != 0; rec = a.ent[rec].next {
			unit := a.pageOf(rec) / a.space.g.unitPages
			if start := unit &^ (1<<order - 1); start != last {
				last = start
				if _, ok := a.emptiable(unit, order); ok {
					a.empty(unit, order, cause)
					return true
				}
			}
		}
	}
	if a.evictAny(class, cause) || a.emptyAny(order, cause) {
		return true
	}
	c.missed = a.releases + 1
	return false
}

// evictable chunks are visible, and have no hold and no lease.
func (a *Arena) evictable(head uint32) bool {
	return a.ent[head].state == stListed && a.ent[head].count == 0
}

func (a *Arena) hasClass(head, class uint32) bool {
	for rec := head; rec != 0; rec = a.ent[rec].next {
		if a.side.recs[rec].class == class {
			return true
		}
	}
	return false
}

func (a *Arena) pageOf(rec uint32) uint32 {
	r := &a.side.recs[rec]
	return uint32(r.segment)*a.space.g.segPages() + r.page
}

// headOf is the head of the visible chunk that a record belongs to; 0 = none.
func (a *Arena) headOf(rec uint32) uint32 {
	switch e := &a.ent[rec]; e.state {
	case stListed, stPublished:
		return rec
	case stMember:
		return e.link
	}
	return 0
}

// emptiable says whether every slot in the run is free or of an evictable
// chunk, and how many pages are in use.
func (a *Arena) emptiable(unit uint32, order int) (used int64, ok bool) {
	ok = a.space.slabsIn(unit, order, func(i uint32) bool {
		sl := &a.space.slabs[i]
		used += int64(sl.used) * int64(sl.class)
		return a.space.users(i, func(rec uint32) bool {
			head := a.headOf(rec)
			return head != 0 && a.evictable(head)
		})
	})
	return used, ok
}

// empty drops every chunk with a slot in the run, which then is free.
func (a *Arena) empty(unit uint32, order int, cause Cause) {
	start := unit &^ (1<<order - 1)
	end := min(start+1<<order, a.space.g.units)
	for u := start; u < end; {
		i := a.space.slabOf[u]
		if i == 0 {
			u++
			continue
		}
		a.space.users(i-1, func(rec uint32) bool {
			a.drop(a.headOf(rec), Evicted, cause)
			return false
		})
	}
}

// evictAny drops one evictable chunk with a part in the class, wherever it is.
func (a *Arena) evictAny(class uint32, cause Cause) bool {
	for i := range a.space.slabs {
		if a.space.slabs[i].class != class {
			continue
		}
		victim := uint32(0)
		a.space.users(uint32(i), func(rec uint32) bool {
			if head := a.headOf(rec); head != 0 && a.evictable(head) {
				victim = head
			}
			return victim == 0
		})
		if victim != 0 {
			a.drop(victim, Evicted, cause)
			return true
		}
	}
	return false
}

// emptyAny empties the run that loses the fewest bytes.
func (a *Arena) emptyAny(order int, cause Cause) bool {
	best, least := ^uint32(0), int64(0)
	for unit := uint32(0); unit+1<<order <= a.space.g.units; unit += 1 << order {
		if used, ok := a.emptiable(unit, order); ok && (best == ^uint32(0) || used < least) {
			best, least = unit, used
		}
	}
	if best == ^uint32(0) {
		return false
	}
	a.empty(best, order, cause)
	return true
}
