package arena

import (
	"github.com/larderkv/larder/api/keys"
)

// lookup finds a chunk of the scope by key for which want says yes; 0 = none.
// A key may have one visible chunk and one assembling chunk for each quality.
func (a *Arena) lookup(hash uint32, key *keys.Key, s Scope, want func(*entry) bool) uint32 {
	ix := a.index
	for p := ix.Start(hash); ix.Tab[p].Rec != 0; p = ix.Step(p) {
		if e := ix.Tab[p]; e.Hash == hash && a.is(e.Rec, key, s) && want(&a.ent[e.Rec]) {
			return e.Rec
		}
	}
	return 0
}

func (a *Arena) is(head uint32, key *keys.Key, s Scope) bool {
	r := &a.side.recs[head]
	return r.key == *key && r.namespace == s.Namespace && r.tenant == s.Tenant
}

func isVisible(e *entry) bool { return e.state.visible() }

func scopeOf(r *record) Scope { return Scope{r.namespace, r.tenant} }

// chunkPages is the memory of a chunk, in pages.
func (a *Arena) chunkPages(head uint32) (n int64) {
	for rec := head; rec != 0; rec = a.ent[rec].next {
		n += int64(a.side.recs[rec].class)
	}
	return n
}

func (a *Arena) info(head uint32) ChunkInfo {
	r, e := &a.side.recs[head], &a.ent[head]
	c := ChunkInfo{
		Scope: scopeOf(r), Key: r.key, Parent: r.parent, Ordinal: r.ordinal, Tokens: r.tokens,
		Quality: r.quality, Parts: r.parts(), Expected: r.parts(), Bytes: a.chunkPages(head) * PageBytes,
	}
	if e.state == stPending {
		c.Parts = int(e.count)
	}
	return c
}

// publish makes a complete assembling chunk visible. What it replaces goes
// first, so that a key never has two visible chunks.
func (a *Arena) publish(head uint32) {
	head = a.order(head)
	r, e := &a.side.recs[head], &a.ent[head]
	s, hash := scopeOf(r), a.index.Hash(r.key[:])
	for {
		old := a.lookup(hash, &r.key, s, func(x *entry) bool {
			return x != e && (x.state.visible() || x.state == stPending && x.quality >= e.quality)
		})
		if old == 0 {
			break
		}
		a.drop(old, Replaced, Cause{Text: "better quality"})
	}
	a.unqueue(head)
	for rec := head; rec != 0; rec = a.ent[rec].next {
		if rec != head {
			a.ent[rec].state, a.ent[rec].link = stMember, head
		}
		a.side.recs[rec].become(kindPart)
	}
	e.state, e.link, e.count = stListed, 0, 0
	// A chunk is useful only after its parent, so it must go before it: chunks
	// of a prompt are stored from head to tail, and the plain order of arrival
	// would evict the head first.
	if parent := a.lookup(a.index.Hash(r.parent[:]), &r.parent, s, isVisible); parent != 0 && a.ent[parent].state == stListed {
		a.policy.AddBelow(head, parent)
	} else {
		a.policy.Add(head)
	}
	a.releases++
	a.st.Chunks++
	a.st.Parts += r.parts()
	a.st.PublishedChunks++
	if a.opt.Observer != nil {
		a.opt.Observer.Published(a.info(head))
	}
}

// drop removes a visible or assembling chunk from view at once, and frees its
// slots unless leases pin them.
func (a *Arena) drop(head uint32, why Reason, cause Cause) {
	r, e := &a.side.recs[head], &a.ent[head]
	info := a.info(head)
	a.index.Remove(a.index.Hash(r.key[:]), head)
	leases := uint16(0)
	if e.state == stPending {
		a.unqueue(head)
	} else {
		if e.state == stListed {
			a.policy.Remove(head)
		}
		leases = e.count
		a.st.Chunks--
		a.st.Parts -= info.Expected
	}
	switch why {
	case Evicted:
		a.st.EvictedChunks++
	case Deleted:
		a.st.DeletedChunks++
	case Cleared:
		a.st.ClearedChunks++
	case Corrupted:
		a.st.CorruptChunks++
	case Pending:
		a.st.ExpiredPendingChunks++
	case Replaced:
		a.st.ReplacedChunks++
	}
	if a.opt.Observer != nil {
		a.opt.Observer.Dropped(info, why, cause)
	}
	if leases == 0 {
		a.freeChunk(head)
		return
	}
	e.state = stDoomed
	if why == Corrupted {
		e.state = stRotten
	}
	// A successor must not bring it back.
	for rec := head; rec != 0; rec = a.ent[rec].next {
		a.side.recs[rec].begin()
	}
}

// freeChunk frees all slots of a chunk that is in no index and has no leases.
// All its records stop being parts before the first slot is free.
func (a *Arena) freeChunk(head uint32) {
	for rec := head; rec != 0; rec = a.ent[rec].next {
		a.side.recs[rec].begin()
	}
	for rec := head; rec != 0; {
		next := a.ent[rec].next
		a.freeSlot(rec)
		rec = next
	}
}

// pin counts a lease on a visible chunk. ok is false at the counter's limit.
func (a *Arena) pin(head uint32) (ok bool) {
	e := &a.ent[head]
	if e.count == 1<<16-1 {
		return false
	}
	if e.state == stListed {
		a.policy.Remove(head)
		e.state = stPublished
	}
	e.count++
	return true
}

// unpin ends a lease.
func (a *Arena) unpin(head uint32) {
	e := &a.ent[head]
	e.count--
	a.settlePins(head)
}

// settlePins lists a chunk that lost its last pin, or frees it if doomed.
func (a *Arena) settlePins(head uint32) {
	e := &a.ent[head]
	if e.count > 0 {
		return
	}
	switch e.state {
	case stDoomed, stRotten:
		a.freeChunk(head)
	case stPublished:
		if e.link == 0 {
			e.state = stListed
			a.policy.Add(head)
			a.releases++
		}
	case stListed: // the scrubber's pin leaves the chunk in its place
		a.releases++
	}
}

// current says whether the reference names a chunk that still is, visible or
// doomed.
func (a *Arena) current(c ChunkRef) bool {
	if c.Index == 0 || c.Index >= a.recHigh {
		return false
	}
	e := &a.ent[c.Index]
	return e.gen == c.Generation && (e.state.visible() || e.state == stDoomed || e.state == stRotten)
}
