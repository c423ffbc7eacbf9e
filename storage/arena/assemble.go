package arena

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// assembly is one commit's work on one chunk.
type assembly struct {
	scope    Scope
	chunk    Chunk
	expected int
	// created is the assembling chunk that this commit began.
	created   uint32
	published bool
	at        cursor
}

// cursor remembers where in a chunk's chain the last part was found: commits
// list parts in order, so that the next one is near and a chunk of thousands
// is not walked from its start for each.
type cursor struct{ head, rec uint32 }

// find looks for a part in a chunk whose chain ascends from the record after
// head; head itself stands where it is. It returns the part's record, or 0 and
// the record behind which it belongs.
func (a *Arena) find(at *cursor, head, id uint32) (rec, after uint32) {
	recs := a.side.recs
	if recs[head].id() == id {
		return head, head
	}
	after = head
	if at.head == head && at.rec != head && recs[at.rec].id() < id {
		after = at.rec
	}
	for next := a.ent[after].next; next != 0; next = a.ent[next].next {
		if got := recs[next].id(); got == id {
			*at = cursor{head, next}
			return next, after
		} else if got > id {
			break
		}
		after = next
	}
	*at = cursor{head, after}
	return 0, after
}

// assemble decides about one sealed part. Kept: its slot belongs to the chunk.
// Any other outcome: the caller frees it.
func (a *Arena) assemble(as *assembly, it *item) (storage.Outcome, error) {
	c := &as.chunk
	id := partID(it.spec.Group, it.spec.Span, it.spec.HeadGroup)
	hash := a.index.Hash(c.Key[:])
	if old := a.lookup(hash, &c.Key, as.scope, isVisible); old != 0 && a.ent[old].quality <= c.Quality {
		rec, _ := a.find(&as.at, old, id)
		if rec == 0 {
			return 0, fault.New(fault.Invalid, "commit.part", "the chunk is there and has no such part").With(it.spec.HeadGroup, a.side.recs[old].parts())
		}
		return a.compare(rec, it), nil
	}
	head := a.lookup(hash, &c.Key, as.scope, func(e *entry) bool { return e.state == stPending && e.quality == c.Quality })
	if head == 0 {
		if err := a.fill(as, it); err != nil {
			return 0, err
		}
		if err := a.index.Insert(hash, it.rec); err != nil {
			return 0, fault.Wrap(fault.Full, err, "arena.index", "no memory for the index")
		}
		e := &a.ent[it.rec]
		e.state, e.quality, e.count, e.next = stPending, c.Quality, 1, 0
		a.pending.chunk++
		a.pending.pages += int64(a.side.recs[it.rec].class)
		as.created, head = it.rec, it.rec
	} else {
		r := &a.side.recs[head]
		if r.parts() != as.expected || r.parent != c.Parent || r.ordinal != c.Ordinal || r.tokens != c.Tokens {
			return 0, fault.New(fault.Invalid, "commit.chunk", "parent, ordinal, tokens or number of parts disagree with parts that are there")
		}
		rec, after := a.find(&as.at, head, id)
		if rec != 0 {
			return a.compare(rec, it), nil
		}
		if err := a.fill(as, it); err != nil {
			return 0, err
		}
		e := &a.ent[it.rec]
		e.state, e.link, e.next = stMember, head, a.ent[after].next
		a.ent[after].next = it.rec
		as.at = cursor{head, it.rec}
		a.ent[head].count++
		a.pending.pages += int64(a.side.recs[it.rec].class)
	}
	if int(a.ent[head].count) == as.expected {
		a.publish(head)
		as.published, as.at = true, cursor{}
	}
	return storage.Kept, nil
}

// compare says what a part is to the one that is there.
func (a *Arena) compare(rec uint32, it *item) storage.Outcome {
	r := &a.side.recs[rec]
	same := uint64(r.stored) == it.spec.RawLength
	if same && it.sums != nil && r.flags&flagUnsummed == 0 {
		same = a.side.tableEqual(r, *it.sums)
	}
	if same {
		return storage.Duplicate
	}
	return storage.Conflict
}

// order puts the head, which was the first part to come, into its place, so
// that the chain of a visible chunk ascends. It returns the head.
func (a *Arena) order(head uint32) uint32 {
	first := a.ent[head].next
	recs := a.side.recs
	id := recs[head].id()
	if first == 0 || id < recs[first].id() {
		return head
	}
	e := a.ent[head]
	after := first
	for n := a.ent[after].next; n != 0 && recs[n].id() < id; n = a.ent[after].next {
		after = n
	}
	a.ent[head].state, a.ent[head].next = stMember, a.ent[after].next
	a.ent[after].next = head
	f := &a.ent[first]
	f.state, f.count, f.quality = e.state, e.count, e.quality
	a.index.Replace(a.index.Hash(recs[head].key[:]), head, first)
	return first
}

// fill writes the record of a part that is kept.
func (a *Arena) fill(as *assembly, it *item) error {
	var sums []uint64
	if it.sums != nil {
		sums = *it.sums
	}
	ext, ok := a.newExts(it.rec, int(it.spec.Layers)-1, sums)
	if !ok {
		return fault.New(fault.Full, "arena.records", "the sidecar is full").With(a.recUsed, len(a.side.recs))
	}
	c, r := &as.chunk, &a.side.recs[it.rec]
	length := uint32(it.spec.RawLength)
	r.begin()
	*r = record{
		quality: c.Quality, encoding: part.EncodingRaw, encodingVersion: part.RawVersion,
		group: it.spec.Group, span: it.spec.Span, headGroup: it.spec.HeadGroup, table: uint16(it.spec.Layers),
		segment: r.segment, namespace: as.scope.Namespace, tenant: as.scope.Tenant, page: r.page, class: r.class,
		stored: length, raw: length, ordinal: c.Ordinal, tokens: c.Tokens, ext: ext,
		key: c.Key, parent: c.Parent,
	}
	if sums == nil {
		r.flags = flagUnsummed
	} else {
		r.sum = sums[0]
	}
	r.commit(it.rec, kindKept, as.expected)
	return nil
}

// newExts writes the extension records for n values, which are sums[1:] or 0.
// They are complete before the record that names them.
func (a *Arena) newExts(owner uint32, n int, sums []uint64) (first uint32, ok bool) {
	for k := extsFor(n) - 1; k >= 0; k-- {
		rec := a.newRecord(stMeta)
		if rec == 0 {
			for first != 0 {
				next := a.side.recs[first].asExt().next
				a.side.recs[first].clear()
				a.recycle(first)
				first = next
			}
			return 0, false
		}
		r := &a.side.recs[rec]
		r.begin()
		*r = record{}
		e := r.asExt()
		e.next, e.owner = first, owner
		for i := k * extValues; i < min(n, (k+1)*extValues) && sums != nil; i++ {
			*e.value(i - k*extValues) = sums[i+1]
		}
		r.commit(rec, kindExt, 0)
		first = rec
	}
	return first, true
}
