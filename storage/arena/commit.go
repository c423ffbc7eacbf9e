package arena

import (
	"context"
	"fmt"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/minio/crc64nvme"
)

// item is one part on its way into the arena.
type item struct {
	rec    uint32 // its slot in the arena; 0 = failed
	data   []byte // the slot's bytes
	source []byte // guarded mode and Put: where they come from
	write  uint32 // guarded mode: record of the write slot
	spec   PartSpec
	clears uint64
	sums   *[]uint64 // nil = unsummed
	want   []uint64  // Put: the table that the bytes must match; nil = any
	err    error
}

// Commit takes written slots from o, checksums them and publishes the chunk if
// it is complete then. It appends one result for each part to out. Whatever
// they are, the slots are not o's any longer.
//
// Kinds of errors: Invalid (a slot that is not granted to o, a wrong length or
// index, parts that disagree), Miss (the grant is past its deadline, or from
// before a Clear), Full (guarded mode, sidecar), Unavailable (session or arena
// ended, ctx done).
func (a *Arena) Commit(ctx context.Context, o Owner, c Chunk, parts []PartCommit, out []Result) []Result {
	base := len(out)
	for range parts {
		out = append(out, Result{})
	}
	res := out[base:]
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		a.rejectAll(res, err)
		return out
	}
	expected, chunkErr := a.expected(own.scope, c, len(parts))
	items := make([]item, len(parts))
	now := a.opt.Clock.MonotonicNanos()
	for i := range parts {
		items[i] = a.take(own, now, i, &parts[i], expected, chunkErr)
	}
	if own.write != nil {
		own.write.users++
	}
	a.seal(ctx, items)
	if w := own.write; w != nil {
		for i := range items {
			if items[i].write != 0 {
				a.freeGrant(own, items[i].write)
			}
		}
		w.users--
		a.closeWrite(w)
	}
	a.settle(own.scope, c, expected, items, res)
	return out
}

// seal copies and sums the items' bytes outside the lock, which the caller
// holds. The slots are sealing: nobody else may touch them.
func (a *Arena) seal(ctx context.Context, items []item) {
	a.busy++
	a.mu.Unlock()
	for i := range items {
		it := &items[i]
		if it.rec == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			it.err = fault.Wrap(fault.Unavailable, err, "commit", "stopped before the part was sealed")
			continue
		}
		if it.source != nil {
			copy(it.data, it.source)
		}
		if a.opt.Verify != Off || it.want != nil {
			it.sums = a.sums.Get().(*[]uint64)
			*it.sums = layerSums((*it.sums)[:0], it.data, int(it.spec.Layers))
		}
		if it.want != nil && !slices.Equal(it.want, *it.sums) {
			it.err = fault.New(fault.Corrupt, "part.table", "the bytes do not match their checksums")
		}
	}
	a.mu.Lock()
	a.leave()
}

// expected checks what all parts share and returns the chunk's part count.
func (a *Arena) expected(s Scope, c Chunk, n int) (int, error) {
	listed := len(a.names.of[nameNamespace][s.Namespace].parts)
	want := c.Expected
	if want == 0 {
		want = listed
	}
	switch {
	case n < 1 || n > MaxParts:
		return 0, fault.New(fault.Invalid, "commit.parts", "out of range").With(n, MaxParts)
	case listed > 0 && want != listed:
		return 0, fault.New(fault.Invalid, "commit.expected", "the namespace lists another number of parts").With(c.Expected, listed)
	case want < 1 || want > MaxParts:
		return 0, fault.New(fault.Invalid, "commit.expected", "out of range").With(want, MaxParts)
	case c.Tokens < 1 || c.Tokens > part.MaxTokens:
		return 0, fault.New(fault.Invalid, "commit.tokens", "out of range").With(c.Tokens, part.MaxTokens)
	}
	return want, nil
}

// spec is the part at an index of a chunk with that many parts.
func (a *Arena) spec(s Scope, index, expected int, length uint64) (PartSpec, error) {
	if index < 0 || index >= expected {
		return PartSpec{}, fault.New(fault.Invalid, "commit.part", "no such part").With(index, expected)
	}
	if list := a.names.of[nameNamespace][s.Namespace].parts; len(list) > 0 {
		if length != list[index].RawLength {
			return PartSpec{}, fault.New(fault.Invalid, "commit.length", "wrong length of part %d", index).With(length, list[index].RawLength)
		}
		return list[index], nil
	}
	if limit := a.maxLength(); length < 1 || length > limit {
		return PartSpec{}, fault.New(fault.Invalid, "commit.length", "out of range").With(length, limit)
	}
	return PartSpec{HeadGroup: uint16(index), RawLength: length, Layers: 1}, nil
}

// take ends o's right to a slot and prepares it for sealing. On an error the
// slot, if it was o's, is free.
func (a *Arena) take(own *owner, now int64, i int, p *PartCommit, expected int, chunkErr error) item {
	rec, ok := a.takeBack(own, p.Slot)
	if !ok {
		return item{err: errNotGranted(fmt.Sprintf("commit.parts[%d].slot", i), p.Slot)}
	}
	r := &a.side.recs[rec]
	it := item{rec: rec, clears: r.clears(), err: chunkErr}
	if it.err == nil {
		it.spec, it.err = a.spec(own.scope, p.Part, expected, p.Length)
	}
	switch {
	case it.err != nil:
	case now > r.deadline():
		it.err = fault.New(fault.Miss, "commit.slot", "the grant's deadline has passed").With(now, r.deadline())
	case p.Length > uint64(r.class)*PageBytes:
		it.err = fault.New(fault.Invalid, "commit.length", "longer than the slot").With(p.Length, uint64(r.class)*PageBytes)
	case own.write == nil:
		it.data = a.space.bytes(a.pageOf(rec), uint32(p.Length))
	default:
		it.write = rec
		class := classPages(p.Length, a.exact)
		it.rec = a.alloc(class, stSealing, own.requester(class))
		if it.rec == 0 {
			it.err = a.fullError(nil, int64(p.Length))
		} else {
			it.source = own.write.space.bytes(r.page, uint32(p.Length))
			it.data = a.space.bytes(a.pageOf(it.rec), uint32(p.Length))
		}
	}
	if it.err != nil {
		a.freeGrant(own, rec)
		it.rec, it.write = 0, 0
	}
	return it
}

// settle decides, under the lock, what becomes of sealed items.
func (a *Arena) settle(s Scope, c Chunk, expected int, items []item, res []Result) {
	as := assembly{scope: s, chunk: c, expected: expected}
	for i := range items {
		it := &items[i]
		if it.rec != 0 && it.err == nil && a.outdated(s, it.clears) {
			it.err = fault.New(fault.Miss, "commit.epoch", "the namespace was cleared after the slot was granted")
		}
		if it.rec != 0 && it.err == nil {
			res[i].Outcome, it.err = a.assemble(&as, it)
		}
		if it.err != nil {
			res[i] = Result{storage.Rejected, it.err}
		}
		if res[i].Outcome != storage.Kept && it.rec != 0 {
			a.freeSlot(it.rec)
		}
		if it.sums != nil {
			a.sums.Put(it.sums)
		}
	}
	if as.created != 0 && !as.published {
		a.enqueue(as.created, a.opt.Clock.MonotonicNanos()+int64(a.opt.PendingTimeout))
	}
	for i := range res {
		switch res[i].Outcome {
		case storage.Kept:
			if as.published {
				res[i].Outcome = storage.Published
			}
			a.st.StoredParts++
			a.st.StoredBytes += items[i].spec.RawLength
		case storage.Duplicate:
			a.st.DuplicateParts++
		case storage.Conflict:
			a.st.ConflictParts++
		case storage.Rejected:
			a.st.RejectedParts++
		}
	}
}

func (a *Arena) rejectAll(res []Result, err error) {
	for i := range res {
		res[i] = Result{storage.Rejected, err}
	}
	if !a.closed {
		a.st.RejectedParts += uint64(len(res))
	}
}

// layerSums appends the checksums of equal layers; layers divides the length.
func layerSums(dst []uint64, data []byte, layers int) []uint64 {
	per := len(data) / layers
	for i := range layers {
		dst = append(dst, crc64nvme.Checksum(data[i*per:(i+1)*per]))
	}
	return dst
}
