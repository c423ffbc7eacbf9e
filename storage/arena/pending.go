package arena

// pendingQueue orders assembling chunks by their deadline, which is the order
// in which they began. Entries of chunks that are complete or gone stay until
// they are met or swept, so the queue costs memory in proportion to what is
// assembling, and nothing for chunks that one commit completes.
type pendingQueue struct {
	q     []pendingChunk
	chunk int   // assembling chunks
	pages int64 // of their slots
}

type pendingChunk struct {
	ref      ChunkRef
	deadline int64
}

// enqueue notes that the chunk is still assembling after its first commit.
func (a *Arena) enqueue(head uint32, deadline int64) {
	p := &a.pending
	if len(p.q) > 64 && len(p.q) > 2*p.chunk {
		live := p.q[:0]
		for _, c := range p.q {
			if a.assembling(c.ref) {
				live = append(live, c)
			}
		}
		p.q = live
	}
	p.q = append(p.q, pendingChunk{ChunkRef{head, a.ent[head].gen}, deadline})
}

func (a *Arena) assembling(c ChunkRef) bool {
	return a.ent[c.Index].gen == c.Generation && a.ent[c.Index].state == stPending
}

// oldest is the assembling chunk that began first; 0 = none.
func (a *Arena) oldest() (head uint32, deadline int64) {
	p := &a.pending
	for len(p.q) > 0 && !a.assembling(p.q[0].ref) {
		p.q = p.q[1:]
	}
	if len(p.q) == 0 {
		return 0, 0
	}
	return p.q[0].ref.Index, p.q[0].deadline
}

// unqueue ends the accounting of an assembling chunk.
func (a *Arena) unqueue(head uint32) {
	a.pending.chunk--
	a.pending.pages -= a.chunkPages(head)
}

// expirePending drops what waited too long.
func (a *Arena) expirePending(now int64) {
	for {
		head, deadline := a.oldest()
		if head == 0 || deadline > now {
			return
		}
		a.drop(head, Pending, Cause{Text: "parts did not come in time"})
	}
}
