package arena

import (
	"fmt"

	"github.com/larderkv/larder/api/fault"
)

// Grant gives o up to n slots for parts of length bytes, appended to dst, and
// never waits: it takes free slots and those of evictable chunks. Fewer than n
// is success; none is Full, and then no visible chunk was evicted for it.
func (a *Arena) Grant(o Owner, length int64, n int, dst []Grant) ([]Grant, error) {
	if limit := a.maxLength(); length < 1 || uint64(length) > limit {
		return dst, fault.New(fault.Invalid, "credits.length", "out of range").With(length, limit)
	}
	if n < 1 || n > MaxGrants {
		return dst, fault.New(fault.Invalid, "credits.count", "out of range").With(n, MaxGrants)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		return dst, err
	}
	class := classPages(uint64(length), a.exact)
	by := own.requester(class)
	deadline := a.opt.Clock.MonotonicNanos() + int64(a.opt.Lease)
	for i := range n {
		rec := uint32(0)
		if own.write != nil {
			rec = a.allocIn(own.write.space, class, stGranted)
		} else {
			rec = a.alloc(class, stGranted, by)
		}
		if rec == 0 {
			if i > 0 {
				break
			}
			a.st.FullGrants++
			return dst, a.fullError(own.write, length)
		}
		r := &a.side.recs[rec]
		r.setGrant(own.id, deadline, a.clears)
		r.commit(rec, kindGranted, 0)
		a.pushBack(&own.live, rec)
		a.st.Grants++
		dst = append(dst, Grant{Slot: a.slotOf(rec), Deadline: deadline})
	}
	return dst, nil
}

func (a *Arena) fullError(w *writeSegment, length int64) error {
	if w != nil {
		return fault.New(fault.Full, "credits", "the write segment has no slot of that length").With(length, len(w.m.mem))
	}
	return fault.New(fault.Full, "credits", "every slot is granted, leased, held, assembling or in quarantine").With(length, a.lay.totalBytes)
}

// requester is the session as one that asks for a slot of the class.
func (own *owner) requester(class uint32) Requester {
	return Requester{own.scope, own.id, int64(class) * PageBytes}
}

// alloc makes a slot of the arena, evicting if it must; 0 = full.
func (a *Arena) alloc(class uint32, st state, by Requester) uint32 {
	for {
		if rec := a.allocIn(a.space, class, st); rec != 0 {
			return rec
		}
		if !a.reclaim(class, by) {
			return 0
		}
	}
}

// allocIn takes a slot from free memory and gives it a record without a kind.
func (a *Arena) allocIn(s *space, class uint32, st state) uint32 {
	rec := a.newRecord(st)
	if rec == 0 {
		return 0
	}
	page, ok := s.alloc(class, rec)
	if !ok {
		a.recycle(rec)
		return 0
	}
	segment, offset := s.place(page)
	r := &a.side.recs[rec]
	r.begin()
	*r = record{segment: segment, page: uint32(offset / PageBytes), class: class}
	a.ent[rec].gen = a.nextGen()
	return rec
}

func (a *Arena) slotOf(rec uint32) Slot {
	r := &a.side.recs[rec]
	return Slot{Segment: r.segment, Offset: uint64(r.page) * PageBytes, Length: uint64(r.class) * PageBytes, Generation: a.ent[rec].gen}
}

// freeSlot frees a slot of the arena and its record. The order matters to a
// successor: the record is nothing before the slot can be anyone else's.
func (a *Arena) freeSlot(rec uint32) {
	r := &a.side.recs[rec]
	page, ok := a.space.page(r.segment, uint64(r.page)*PageBytes)
	if !ok {
		panic("arena: a record names a place outside the arena")
	}
	a.dropRecord(rec)
	a.space.free(page)
	a.releases++
}

// freeGrant frees a slot that was granted to own and is on no list any more.
func (a *Arena) freeGrant(own *owner, rec uint32) {
	if own.write == nil {
		a.freeSlot(rec)
		return
	}
	r := &a.side.recs[rec]
	page, ok := own.write.space.page(r.segment, uint64(r.page)*PageBytes)
	if !ok {
		panic("arena: a record names a place outside the write segment")
	}
	a.dropRecord(rec)
	own.write.space.free(page)
}

// takeBack ends own's right to the slot, if it has it. The record's state is
// sealing then, and the caller frees or fills it.
func (a *Arena) takeBack(own *owner, s Slot) (rec uint32, ok bool) {
	sp := a.space
	if own.write != nil {
		sp = own.write.space
	}
	page, ok := sp.page(s.Segment, s.Offset)
	if !ok {
		return 0, false
	}
	rec = sp.user(page)
	if rec == 0 {
		return 0, false
	}
	e := &a.ent[rec]
	if e.gen != s.Generation || e.state != stGranted && e.state != stRevoked || a.side.recs[rec].owner() != own.id {
		return 0, false
	}
	if e.state == stRevoked {
		delete(own.revoked, rec)
	} else {
		a.unlink(&own.live, rec)
	}
	e.state = stSealing
	return rec, true
}

func errNotGranted(field string, s Slot) error {
	return fault.New(fault.Invalid, field, "the slot is not granted to this session").
		With(fmt.Sprintf("segment %d offset %d generation %d", s.Segment, s.Offset, s.Generation), nil)
}

// Return gives granted slots back. Those that are not o's are left alone, and
// the first of them is named in an Invalid error; the others are returned.
func (a *Arena) Return(o Owner, slots []Slot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		return err
	}
	for _, s := range slots {
		rec, ok := a.takeBack(own, s)
		if !ok {
			if err == nil {
				err = errNotGranted("return_credits.slots", s)
			}
			continue
		}
		a.freeGrant(own, rec)
	}
	return err
}
