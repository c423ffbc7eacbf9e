package arena

import (
	"context"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Put stores one part from the daemon's own memory: what Commit does for a
// client that cannot map the arena.
func (a *Arena) Put(ctx context.Context, s Scope, c Chunk, p int, src []byte) Result {
	return a.put(ctx, s, c, p, src, nil)
}

// put also checks the bytes against a table, if there is one.
func (a *Arena) put(ctx context.Context, s Scope, c Chunk, p int, src []byte, want []uint64) Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	var res [1]Result
	it, expected, err := a.newPut(s, c, p, src)
	if err != nil {
		a.rejectAll(res[:], err)
		return res[0]
	}
	it.want = want
	items := []item{it}
	a.seal(ctx, items)
	a.settle(s, c, expected, items, res[:])
	return res[0]
}

func (a *Arena) newPut(s Scope, c Chunk, p int, src []byte) (item, int, error) {
	if err := a.writable(s); err != nil {
		return item{}, 0, err
	}
	expected, err := a.expected(s, c, 1)
	if err != nil {
		return item{}, 0, err
	}
	spec, err := a.spec(s, p, expected, uint64(len(src)))
	if err != nil {
		return item{}, 0, err
	}
	class := classPages(uint64(len(src)), a.exact)
	rec := a.alloc(class, stSealing, Requester{Scope: s, Bytes: int64(class) * PageBytes})
	if rec == 0 {
		return item{}, 0, a.fullError(nil, int64(len(src)))
	}
	return item{rec: rec, data: a.space.bytes(a.pageOf(rec), uint32(len(src))), source: src, spec: spec, clears: a.clears}, expected, nil
}

func (a *Arena) writable(s Scope) error {
	switch {
	case a.closed:
		return errClosed()
	case !a.scopeKnown(s):
		return fault.New(fault.Invalid, "scope", "namespace or tenant is not registered").With(s, nil)
	case !a.names.of[nameNamespace][s.Namespace].known:
		return fault.New(fault.Invalid, "scope.namespace", "the namespace's parts are not registered").With(s.Namespace, nil)
	}
	return nil
}

// Tier is the arena as a tier, for one scope.
func (a *Arena) Tier(s Scope) storage.Tier { return tier{a, s, true} }

// Background is Tier for copies in the background: a Get is no use of the
// chunk. Were it one, writing back what nears eviction would keep it.
func (a *Arena) Background(s Scope) storage.Tier { return tier{a, s, false} }

type tier struct {
	a *Arena
	s Scope
	// uses: a Get counts as one.
	uses bool
}

// Name implements storage.Tier.
func (t tier) Name() string { return "host" }

// Get implements storage.Tier. The bytes are copied first and the copy is
// verified, so that nobody can change them in between.
func (t tier) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	ref, rec, n, err := t.locate(id, t.uses)
	if err != nil {
		return 0, err
	}
	if n > len(dst) {
		return 0, fault.New(fault.Invalid, "get.length", "the buffer is too short").With(len(dst), n)
	}
	if err := ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "get", "stopped")
	}
	l := Leased{Chunk: ref, rec: rec}
	if err := t.a.Descriptor(l, d); err != nil {
		return 0, err
	}
	_, err = t.a.inspectBytes(ref, rec, "get", func(p pinned) error {
		copy(dst[:n], p.data)
		return t.a.checkBytes(p, dst[:n])
	})
	if err != nil {
		clear(dst[:n])
		return 0, err
	}
	return n, nil
}

// Put implements storage.Tier.
func (t tier) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	if err := part.VerifySeal(d); err != nil {
		return storage.Rejected, err
	}
	if !d.Raw() {
		return storage.Rejected, fault.New(fault.Invalid, "part.encoding", "this tier keeps raw parts only").With(d.Encoding, part.EncodingRaw)
	}
	index, err := t.a.partIndex(t.s, d)
	if err != nil {
		return storage.Rejected, err
	}
	c := Chunk{Key: d.ID.Chunk, Parent: d.Parent, Ordinal: d.Ordinal, Tokens: d.Tokens, Quality: d.Quality}
	res := t.a.put(ctx, t.s, c, index, src, d.Table)
	return res.Outcome, res.Err
}

// Stat implements storage.Tier.
func (t tier) Stat(_ context.Context, id part.ID, d *part.Descriptor) error {
	ref, rec, _, err := t.locate(id, false)
	if err != nil {
		return err
	}
	return t.a.Descriptor(Leased{Chunk: ref, rec: rec}, d)
}

// Delete implements storage.Tier.
func (t tier) Delete(_ context.Context, chunk keys.Key) (bool, error) {
	return t.a.Drop(t.s, chunk), nil
}

// locate finds a part of a visible chunk.
func (t tier) locate(id part.ID, use bool) (ref ChunkRef, rec uint32, length int, err error) {
	a := t.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ref, 0, 0, errClosed()
	}
	head := a.lookup(a.index.Hash(id.Chunk[:]), &id.Chunk, t.s, isVisible)
	if head != 0 {
		rec, _ = a.find(&cursor{}, head, partID(id.Group, id.Span, id.HeadGroup))
	}
	if rec == 0 {
		return ref, 0, 0, fault.New(fault.Miss, "part", "not here")
	}
	if use && a.ent[head].state == stListed {
		a.policy.Touch(head)
	}
	return ChunkRef{head, a.ent[head].gen}, rec, int(a.side.recs[rec].stored), nil
}

// partIndex finds a part in the namespace's list and checks its table's size.
func (a *Arena) partIndex(s Scope, d *part.Descriptor) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.writable(s); err != nil {
		return 0, err
	}
	list := storage.Layout(a.names.of[nameNamespace][s.Namespace].parts)
	i := list.Index(d.ID)
	switch {
	case i < 0:
		return 0, fault.New(fault.Invalid, "part.id", "the namespace has no such part").With(d.ID, nil)
	case int(list[i].Layers) != len(d.Table):
		return 0, fault.New(fault.Invalid, "part.table", "wrong number of checksums").With(len(d.Table), list[i].Layers)
	}
	return i, nil
}

// Fill is Put for a part that fill brings: it gets the slot's own memory, a
// range that begins on a page and is as long as the part, and sets descriptor
// and bytes. They are verified as in Put. What fill says is returned, and then
// nothing is kept. A chunk that is there in exact quality is a duplicate, and
// fill is not called.
func (t tier) Fill(ctx context.Context, id part.ID, fill func(d *part.Descriptor, dst []byte) (int, error)) (storage.Outcome, error) {
	a := t.a
	a.mu.Lock()
	defer a.mu.Unlock()
	it, expected, there, err := t.newFill(id)
	if err != nil {
		return storage.Rejected, err
	}
	if there {
		return storage.Duplicate, nil
	}
	var d part.Descriptor
	a.busy++
	a.mu.Unlock()
	if err = ctx.Err(); err != nil {
		it.err = fault.Wrap(fault.Unavailable, err, "put", "stopped")
	} else {
		it.err = it.fill(id, &d, fill)
	}
	if it.err == nil {
		it.sums = a.sums.Get().(*[]uint64)
		*it.sums = layerSums((*it.sums)[:0], it.data, int(it.spec.Layers))
		if !slices.Equal(*it.sums, d.Table) {
			it.err = fault.New(fault.Corrupt, "part.table", "the bytes do not match their checksums")
		}
	}
	a.mu.Lock()
	a.leave()
	c := Chunk{Key: id.Chunk, Parent: d.Parent, Ordinal: d.Ordinal, Tokens: d.Tokens, Quality: d.Quality}
	var res [1]Result
	a.settle(t.s, c, expected, []item{it}, res[:])
	return res[0].Outcome, res[0].Err
}

// newFill takes a slot for a part of the namespace's list. The caller holds the
// lock.
func (t tier) newFill(id part.ID) (it item, expected int, there bool, err error) {
	a := t.a
	if err := a.writable(t.s); err != nil {
		return it, 0, false, err
	}
	if head := a.lookup(a.index.Hash(id.Chunk[:]), &id.Chunk, t.s, isVisible); head != 0 && a.ent[head].quality == part.QualityExact {
		return it, 0, true, nil
	}
	list := storage.Layout(a.names.of[nameNamespace][t.s.Namespace].parts)
	i := list.Index(id)
	if i < 0 {
		return it, 0, false, fault.New(fault.Invalid, "part.id", "the namespace has no such part").With(id, nil)
	}
	spec := list[i]
	class := classPages(spec.RawLength, a.exact)
	rec := a.alloc(class, stSealing, Requester{Scope: t.s, Bytes: int64(class) * PageBytes})
	if rec == 0 {
		return it, 0, false, a.fullError(nil, int64(spec.RawLength))
	}
	return item{rec: rec, data: a.space.bytes(a.pageOf(rec), uint32(spec.RawLength)), spec: spec, clears: a.clears}, len(list), false, nil
}

// fill lets f bring the part, and checks what it brought but for the sums.
func (it *item) fill(id part.ID, d *part.Descriptor, f func(d *part.Descriptor, dst []byte) (int, error)) error {
	n, err := f(d, it.data)
	if err != nil {
		return err
	}
	switch err := part.VerifySeal(d); {
	case err != nil:
		return err
	case !d.Raw():
		return fault.New(fault.Miss, "part.encoding", "not raw").With(d.Encoding, part.EncodingRaw)
	case d.ID != id:
		return fault.New(fault.Corrupt, "part.id", "another part came").With(d.ID, id)
	case n != len(it.data) || len(d.Table) != int(it.spec.Layers):
		return fault.New(fault.Invalid, "part.raw_length", "wrong length or number of checksums").With(n, len(it.data))
	}
	return nil
}
