package arena

// State of a record's entry.
type state uint8

const (
	stFree      state = iota
	stGranted         // an owner may write the slot until the deadline
	stRevoked         // deadline passed, not answered
	stSealing         // the daemon works on it; nobody else
	stPending         // first part of a chunk that is not complete
	stPublished       // first part of a visible chunk that is pinned
	stListed          // the same, on the policy's list: it may be evicted
	stDoomed          // first part of a dropped chunk that is still leased
	stRotten          // the same, dropped because it is corrupt
	stMember          // another part of a chunk
	stMeta            // extension or name; has no slot
)

// entry is what is known about a record beside the sidecar: 16 bytes, index
// equal to the record's. A chunk is named by the record of its first part, its
// head. A successor does not need any of it.
type entry struct {
	// next: granted: next in the owner's list; part: next part of the chunk,
	// ascending; free: next free record.
	next uint32
	// gen is the slot's generation; a head's is the chunk's too.
	gen uint32
	// link: granted: previous in the owner's list; published: holds; member of
	// a published or doomed chunk: its head.
	link uint32
	// count: pending: parts present; published, doomed: leases.
	count   uint16
	state   state
	quality uint8 // of heads
}

func (s state) visible() bool { return s == stPublished || s == stListed }

// newRecord takes an unused record; 0 = there is none.
func (a *Arena) newRecord(st state) uint32 {
	rec := a.recFree
	if rec != 0 {
		a.recFree = a.ent[rec].next
	} else {
		if a.recHigh == uint32(len(a.side.recs)) {
			return 0
		}
		rec = a.recHigh
		a.recHigh++
		a.side.setCounter(highAt, a.recHigh)
	}
	a.recUsed++
	a.ent[rec] = entry{state: st}
	return rec
}

// dropRecord frees a record and its extensions; its slot must be free already.
func (a *Arena) dropRecord(rec uint32) {
	r := &a.side.recs[rec]
	ext, n := r.ext, extsFor(r.values())
	r.clear()
	r.ext, r.table, r.flags = 0, 0, 0
	a.recycle(rec)
	for ; n > 0; n-- {
		e := a.side.recs[ext].asExt()
		next := e.next
		a.side.recs[ext].clear()
		a.recycle(ext)
		ext = next
	}
}

func (a *Arena) recycle(rec uint32) {
	a.ent[rec] = entry{next: a.recFree}
	a.recFree = rec
	a.recUsed--
}

// nextGen is a generation that no slot of this arena or its predecessors has.
func (a *Arena) nextGen() uint32 {
	a.gen++
	if a.gen == 0 {
		a.gen = 1
	}
	if a.gen == a.genLimit {
		a.genLimit += genBatch
		a.side.setCounter(genLimitAt, a.genLimit)
	}
	return a.gen
}
