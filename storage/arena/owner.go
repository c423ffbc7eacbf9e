package arena

import (
	"maps"
	"slices"

	"github.com/larderkv/larder/api/fault"
)

// owner is a session. It lives from Attach until it has nothing any more:
// Detach where it held nothing, else Gone.
type owner struct {
	id    Owner
	scope Scope
	// live holds the granted slots, oldest and so earliest deadline first.
	live list
	// revoked holds those past their deadline: record -> when revoked.
	revoked map[uint32]int64
	loads   map[uint64]*loadState
	// detached: the session ended; what is left is in quarantine.
	detached bool
	// write is the write segment in guarded mode. users counts commits that
	// read it outside the lock: it is unmapped when gone and unused.
	write *writeSegment
}

// loadState is a load: a set of leases under one deadline.
type loadState struct {
	deadline  int64
	revokedAt int64 // 0 = not revoked
	chunks    []ChunkRef
	// excused chunks were found corrupt by this load's own verification: the
	// damaged part was never reported ready, so it voids nothing here.
	excused []ChunkRef
}

type writeSegment struct {
	space *space
	m     *memory
	users int
	gone  bool
}

func (w *writeSegment) close() error {
	err := w.space.close()
	if e := w.m.close(); err == nil {
		err = e
	}
	return err
}

// list is a chain of entries through next and link.
type list struct {
	head, tail uint32
	n          int
}

func (a *Arena) pushBack(l *list, rec uint32) {
	e := &a.ent[rec]
	e.next, e.link = 0, l.tail
	if l.tail != 0 {
		a.ent[l.tail].next = rec
	} else {
		l.head = rec
	}
	l.tail = rec
	l.n++
}

func (a *Arena) unlink(l *list, rec uint32) {
	e := &a.ent[rec]
	if e.link != 0 {
		a.ent[e.link].next = e.next
	} else {
		l.head = e.next
	}
	if e.next != 0 {
		a.ent[e.next].link = e.link
	} else {
		l.tail = e.link
	}
	e.next, e.link = 0, 0
	l.n--
}

// Attach makes o a session of the scope. In guarded mode it gets its write
// segment; Full: the write reserve is used up. An owner number is used once.
func (a *Arena) Attach(o Owner, s Scope) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return errClosed()
	case o == 0:
		return fault.New(fault.Invalid, "owner", "0 is not an owner")
	case a.owners[o] != nil:
		return fault.New(fault.Invalid, "owner", "the owner is attached or in quarantine").With(o, nil)
	case !a.scopeKnown(s):
		return fault.New(fault.Invalid, "scope", "namespace or tenant is not registered").With(s, nil)
	case !a.names.of[nameNamespace][s.Namespace].known:
		return fault.New(fault.Invalid, "scope.namespace", "the namespace's parts are not registered").With(s.Namespace, nil)
	}
	own := &owner{id: o, scope: s, revoked: map[uint32]int64{}, loads: map[uint64]*loadState{}}
	if a.opt.Mode == Guarded {
		w, err := a.newWriteSegment()
		if err != nil {
			return err
		}
		own.write = w
	}
	a.owners[o] = own
	return nil
}

// newWriteSegment makes memory under the lock: sparse memfds cost
// microseconds, and the budget check must be one step with it.
func (a *Arena) newWriteSegment() (*writeSegment, error) {
	size := a.opt.WriteSegmentBytes
	if a.writeBytes+size > a.opt.WriteReserve {
		return nil, fault.New(fault.Full, "arena.write_reserve", "no write segment is left").With(a.writeBytes+size, a.opt.WriteReserve)
	}
	m, err := newMemory("larder-write", size, a.opt.HugePages)
	if err != nil {
		return nil, fault.Wrap(fault.Full, err, "arena.write_segment", "no memory for a write segment")
	}
	sp, err := newSpace(newGeometry(nextPow2(size), size), WriteSegment, [][]byte{m.mem})
	if err == nil {
		err = m.finish(false)
	}
	if err != nil {
		_ = m.close()
		return nil, fault.Wrap(fault.Full, err, "arena.write_segment", "no memory for a write segment")
	}
	sp.freeAll()
	a.writeBytes += size
	return &writeSegment{space: sp, m: m}, nil
}

// WriteSegment returns the owner's write segment in guarded mode. fd belongs
// to the arena.
func (a *Arena) WriteSegment(o Owner) (fd int, bytes int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.owners[o]
	if own == nil || own.write == nil {
		return -1, 0, false
	}
	return own.write.m.fd, int64(len(own.write.m.mem)), true
}

// attached returns a living session.
func (a *Arena) attached(o Owner) (*owner, error) {
	if a.closed {
		return nil, errClosed()
	}
	own := a.owners[o]
	if own == nil || own.detached {
		return nil, fault.New(fault.Unavailable, "session", "the session has ended or never was").With(o, nil)
	}
	return own, nil
}

// Detach ends the session while its process may live. It returns the bytes
// that stay in quarantine until Gone; 0: the owner is forgotten already.
// Commits in progress finish. A second Detach returns 0 and changes nothing.
func (a *Arena) Detach(o Owner) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.owners[o]
	if a.closed || own == nil || own.detached {
		return 0
	}
	if own.live.n == 0 && len(own.revoked) == 0 && len(own.loads) == 0 && own.write == nil {
		delete(a.owners, o)
		return 0
	}
	own.detached = true
	a.st.Quarantines++
	return a.ownerBytes(own)
}

// ownerBytes is what the owner keeps others from using.
func (a *Arena) ownerBytes(own *owner) int64 {
	if own.write != nil {
		return int64(len(own.write.m.mem)) + a.loadBytes(own, nil)
	}
	return a.grantBytes(own) + a.loadBytes(own, nil)
}

func (a *Arena) grantBytes(own *owner) (n int64) {
	for rec := own.live.head; rec != 0; rec = a.ent[rec].next {
		n += int64(a.side.recs[rec].class)
	}
	for rec := range own.revoked {
		n += int64(a.side.recs[rec].class)
	}
	return n * PageBytes
}

// loadBytes counts each leased chunk once, and none that is in seen.
func (a *Arena) loadBytes(own *owner, seen map[uint32]bool) (n int64) {
	if seen == nil {
		seen = map[uint32]bool{}
	}
	for _, l := range own.loads {
		for _, c := range l.chunks {
			if !seen[c.Index] {
				seen[c.Index] = true
				n += a.chunkPages(c.Index)
			}
		}
	}
	return n * PageBytes
}

// Gone says that the process makes no access any more, because it is dead or
// said so: everything the owner had is free. It includes Detach.
func (a *Arena) Gone(o Owner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.owners[o]
	if a.closed || own == nil {
		return
	}
	for own.live.head != 0 {
		rec := own.live.head
		a.unlink(&own.live, rec)
		a.freeGrant(own, rec)
	}
	// In order, so that what is granted next does not depend on a map.
	for _, rec := range slices.Sorted(maps.Keys(own.revoked)) {
		a.freeGrant(own, rec)
	}
	for id, l := range own.loads {
		delete(own.loads, id)
		a.endLoad(l)
	}
	delete(a.owners, o)
	if w := own.write; w != nil {
		w.gone = true
		a.closeWrite(w)
	}
}

// closeWrite unmaps a write segment that nobody uses any more.
func (a *Arena) closeWrite(w *writeSegment) {
	if !w.gone || w.users > 0 {
		return
	}
	a.writeBytes -= int64(len(w.m.mem))
	if err := w.close(); err != nil {
		panic("arena: unmap a write segment: " + err.Error())
	}
}
