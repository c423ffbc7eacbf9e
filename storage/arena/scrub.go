package arena

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
)

// Scrub checks the parts of visible chunks, from where the last call ended,
// until about budget bytes are read or all were seen once. Damaged chunks are
// dropped; unsummed parts are summed. It disturbs neither the order of eviction
// nor other calls.
func (a *Arena) Scrub(ctx context.Context, budget int64) (checked, corrupt int) {
	for seen := uint32(0); budget > 0 && ctx.Err() == nil; {
		ref, rec, length, steps, ok := a.nextPart()
		if seen += steps; !ok || seen > a.scrubEnd() {
			return checked, corrupt
		}
		if rec == 0 {
			continue
		}
		budget -= int64(length)
		unsummed := false
		_, err := a.inspectBytes(ref, rec, "scrub", func(p pinned) error {
			if unsummed = p.unsummed; unsummed {
				return nil
			}
			return a.checkBytes(p, p.data)
		})
		if unsummed {
			err = a.sum(ref, rec)
		}
		switch {
		case err == nil:
			checked++
		case errors.Is(err, fault.Corrupt):
			checked++
			corrupt++
		}
	}
	return checked, corrupt
}

func (a *Arena) scrubEnd() uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.recHigh
}

// nextPart moves the scrubber's position to the next part of a visible chunk,
// within a bounded number of records.
func (a *Arena) nextPart() (ref ChunkRef, rec, length, steps uint32, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.recHigh <= 1 {
		return ref, 0, 0, 0, false
	}
	for steps < clearBatch {
		steps++
		if a.scrubAt++; a.scrubAt >= a.recHigh {
			a.scrubAt = 1
		}
		if head := a.headOf(a.scrubAt); head != 0 && a.ent[head].state.visible() {
			return ChunkRef{head, a.ent[head].gen}, a.scrubAt, a.side.recs[a.scrubAt].stored, steps, true
		}
		if steps >= a.recHigh {
			break
		}
	}
	return ref, 0, 0, steps, true
}

// sum computes the table of an unsummed part, so that it may leave the arena
// or be verified later. Summed parts are left alone.
func (a *Arena) sum(ref ChunkRef, rec uint32) error {
	var sums []uint64
	p, err := a.inspectBytes(ref, rec, "sum", func(p pinned) error {
		if p.unsummed {
			sums = layerSums(nil, p.data, int(p.r.table))
		}
		return nil
	})
	if err != nil || sums == nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || !a.current(ref) || p.r.flags&flagUnsummed == 0 {
		return nil
	}
	r := p.r
	kind, parts := r.kind(), r.parts()
	r.begin()
	r.flags &^= flagUnsummed
	r.sum = sums[0]
	skip := 0
	if r.flags&flagBasis != 0 {
		skip = 1
	}
	for i, at := 0, r.ext; i < r.values(); {
		e := &a.side.recs[at]
		e.begin()
		for j := 0; j < extValues && i < r.values(); j++ {
			if i >= skip {
				*e.asExt().value(j) = sums[i-skip+1]
			}
			i++
		}
		e.commit(at, kindExt, 0)
		at = e.asExt().next
	}
	r.commit(rec, kind, parts)
	return nil
}
