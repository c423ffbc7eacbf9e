package arena

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

// Inspection shows a chunk to an operator.
type Inspection struct {
	Info          ChunkInfo
	Complete      bool
	Holds, Leases int
	Parts         []InspectedPart
}

// InspectedPart shows one part of it. Unsummed parts have a table of zeros.
type InspectedPart struct {
	Slot       Slot
	Descriptor part.Descriptor
	Unsummed   bool
}

// Inspect shows all chunks under a key: visible and assembling, of every
// scope. It is no use of them. It copies descriptors under the lock.
func (a *Arena) Inspect(key keys.Key) []Inspection {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	var out []Inspection
	ix, hash := a.index, a.index.Hash(key[:])
	for p := ix.Start(hash); ix.Tab[p].Rec != 0; p = ix.Step(p) {
		head := ix.Tab[p].Rec
		if a.side.recs[head].key != key {
			continue
		}
		e := &a.ent[head]
		in := Inspection{Info: a.info(head), Complete: e.state.visible()}
		if in.Complete {
			in.Holds, in.Leases = int(e.link), int(e.count)
		}
		for rec := head; rec != 0; rec = a.ent[rec].next {
			ip := InspectedPart{Slot: a.slotOf(rec), Unsummed: a.side.recs[rec].flags&flagUnsummed != 0}
			if a.describe(rec, &ip.Descriptor) == nil {
				in.Parts = append(in.Parts, ip)
			}
		}
		out = append(out, in)
	}
	return out
}

// describe makes the sealed descriptor of a part.
func (a *Arena) describe(rec uint32, d *part.Descriptor) error {
	r := &a.side.recs[rec]
	*d = part.Descriptor{
		ID:     part.ID{Chunk: r.key, Group: r.group, Span: r.span, HeadGroup: r.headGroup},
		Parent: r.parent, Ordinal: r.ordinal, Tokens: r.tokens,
		Encoding: r.encoding, EncodingVersion: r.encodingVersion, Quality: r.quality,
		Basis: a.side.basis(r), StoredLength: r.stored, RawLength: r.raw,
		Table: a.side.appendTable(d.Table[:0], r),
	}
	return part.Seal(d)
}

// Descriptor copies the descriptor of a leased part into d, reusing d.Table. A
// part that is still unsummed is summed for it.
func (a *Arena) Descriptor(l Leased, d *part.Descriptor) error {
	if err := a.sum(l.Chunk, l.rec); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errClosed()
	}
	if !a.current(l.Chunk) {
		return fault.New(fault.Miss, "load.chunk", "the chunk is gone")
	}
	return a.describe(l.rec, d)
}
