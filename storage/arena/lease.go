package arena

import (
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// Lease makes parts of one chunk readable for o's load and appends them to dst
// in the order asked for; nil = all, in the namespace's order. The first lease
// of a load sets the deadline of all. Verify each before it is handed out.
//
// Miss: the chunk is gone, or the load is past its deadline. Busy: too many
// leases on the chunk.
func (a *Arena) Lease(o Owner, load uint64, ref ChunkRef, parts []int, dst []Leased) ([]Leased, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		return dst, err
	}
	if !a.current(ref) || !a.ent[ref.Index].state.visible() || scopeOf(&a.side.recs[ref.Index]) != own.scope {
		return dst, fault.New(fault.Miss, "load.chunk", "the chunk is gone")
	}
	now := a.opt.Clock.MonotonicNanos()
	l := own.loads[load]
	if l != nil && (l.revokedAt != 0 || now > l.deadline) {
		return dst, fault.New(fault.Miss, "load", "the load's deadline has passed").With(now, l.deadline)
	}
	if len(parts) > MaxParts {
		return dst, fault.New(fault.Invalid, "load.parts", "too many parts").With(len(parts), MaxParts)
	}
	n := a.side.recs[ref.Index].parts()
	for _, p := range parts {
		if p < 0 || p >= n {
			return dst, fault.New(fault.Invalid, "load.parts", "no such part").With(p, n)
		}
	}
	if !a.pin(ref.Index) {
		return dst, fault.New(fault.Busy, "load.chunk", "too many leases on one chunk").With(nil, 1<<16-1)
	}
	deadline := now + int64(a.opt.Lease)
	if l == nil {
		l = &loadState{deadline: deadline}
		own.loads[load] = l
	}
	l.chunks = append(l.chunks, ref)
	return a.appendLeased(Leased{Chunk: ref, Deadline: l.deadline, owner: o, load: load}, parts, dst), nil
}

func (a *Arena) appendLeased(l Leased, parts []int, dst []Leased) []Leased {
	ref := l.Chunk
	add := func(i int, rec uint32) {
		r := &a.side.recs[rec]
		l.Part, l.Slot, l.Length, l.rec = i, a.slotOf(rec), uint64(r.stored), rec
		dst = append(dst, l)
		a.st.LeasedParts++
		a.st.LeasedBytes += uint64(r.stored)
	}
	if parts == nil {
		for i, rec := 0, ref.Index; rec != 0; i, rec = i+1, a.ent[rec].next {
			add(i, rec)
		}
		return dst
	}
	i, rec := 0, ref.Index
	for _, p := range parts {
		if p < i {
			i, rec = 0, ref.Index
		}
		for ; i < p; i++ {
			rec = a.ent[rec].next
		}
		add(p, rec)
	}
	return dst
}

// Verify checks the bytes of a leased part, as the mode says. Corrupt: they
// are damaged: the chunk is dropped, this part must not be handed out, and
// other loads that lease the chunk can not be confirmed any more. Miss: the
// lease has ended, or the encoding is not known.
func (a *Arena) Verify(l Leased) error {
	if !a.verifies() {
		return nil
	}
	_, err := a.inspectBytes(l.Chunk, l.rec, "load", func(p pinned) error {
		if p.unsummed {
			return nil
		}
		return a.checkBytes(p, p.data)
	})
	if errors.Is(err, fault.Corrupt) {
		a.excuse(l)
	}
	return err
}

func (a *Arena) excuse(l Leased) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if own := a.owners[l.owner]; own != nil && own.loads[l.load] != nil {
		ld := own.loads[l.load]
		ld.excused = append(ld.excused, l.Chunk)
	}
}

func (a *Arena) verifies() bool {
	switch {
	case a.opt.Mode == Guarded || a.opt.Verify == Off:
		return false
	case a.opt.Verify == Sample:
		return a.sampled.Add(1)%uint64(a.opt.SampleEvery) == 0
	}
	return true
}

// pinned is a part that stays as it is while work outside the lock looks at
// it.
type pinned struct {
	rec      uint32
	r        *record
	data     []byte
	unsummed bool
}

// inspectBytes pins the chunk, runs f outside the lock, and drops the chunk if
// f says Corrupt. The chunk keeps its place in the order of eviction.
func (a *Arena) inspectBytes(ref ChunkRef, rec uint32, cause string, f func(pinned) error) (pinned, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return pinned{}, errClosed()
	}
	if !a.current(ref) || a.ent[ref.Index].count == 1<<16-1 {
		return pinned{}, fault.New(fault.Miss, "load.chunk", "the chunk is gone")
	}
	r := &a.side.recs[rec]
	p := pinned{rec: rec, r: r, data: a.space.bytes(a.pageOf(rec), r.stored), unsummed: r.flags&flagUnsummed != 0}
	a.ent[ref.Index].count++
	a.busy++
	a.mu.Unlock()
	err := f(p)
	a.mu.Lock()
	a.leave()
	if k, _ := fault.KindOf(err); k == fault.Corrupt {
		a.st.CorruptParts++
		switch e := &a.ent[ref.Index]; {
		case e.state.visible():
			a.drop(ref.Index, Corrupted, Cause{Text: cause})
		case e.state == stDoomed:
			e.state = stRotten
		}
	}
	a.unpin(ref.Index)
	return p, err
}

// checkBytes compares data with the part's table.
func (a *Arena) checkBytes(p pinned, data []byte) error {
	if p.r.encoding != part.EncodingRaw || p.r.encodingVersion != part.RawVersion {
		return fault.New(fault.Miss, "part.encoding", "unknown encoding").With(p.r.encoding, part.EncodingRaw)
	}
	sums := a.sums.Get().(*[]uint64)
	defer a.sums.Put(sums)
	*sums = layerSums((*sums)[:0], data, int(p.r.table))
	a.verified.Add(1)
	if !a.side.tableEqual(p.r, *sums) {
		return fault.New(fault.Corrupt, "part.table", "the bytes do not match their checksums")
	}
	return nil
}

// Release ends a load. The bytes that were copied count only if it is true:
// the deadline has not passed, the session lives, and no chunk of the load was
// found corrupt meanwhile. A load that is not there is not confirmed.
func (a *Arena) Release(o Owner, load uint64) (confirmed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := a.attached(o)
	if err != nil {
		return false
	}
	l := own.loads[load]
	if l == nil {
		return false
	}
	delete(own.loads, load)
	sound := a.endLoad(l)
	return sound && l.revokedAt == 0 && a.opt.Clock.MonotonicNanos() <= l.deadline
}

// endLoad ends the leases, the last chunk first, and says whether all chunks
// were sound, as far as their parts were handed out.
func (a *Arena) endLoad(l *loadState) (sound bool) {
	sound = true
	for i := len(l.chunks) - 1; i >= 0; i-- {
		head := l.chunks[i].Index
		if a.ent[head].state == stRotten && !slices.Contains(l.excused, l.chunks[i]) {
			sound = false
		}
		a.unpin(head)
	}
	return sound
}
