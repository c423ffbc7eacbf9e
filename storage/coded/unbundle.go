package coded

import (
	"context"
	"slices"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiered"
)

var _ tiered.Gatherer = (*Tier)(nil)

// Together implements tiered.Gatherer: the parts of a section that is written as a
// bundle, or may have been.
func (t *Tier) Together(parts storage.Layout) int {
	b := t.stage.bundles[section{parts[0].Group, parts[0].Span}]
	if b == nil || !t.stage.mayBundle || parts[0].HeadGroup != 0 || len(parts) < b.parts {
		return 1
	}
	return b.parts
}

// GetParts implements tiered.Gatherer.
func (t *Tier) GetParts(ctx context.Context, ids []part.ID, ds []*part.Descriptor, dsts [][]byte) error {
	for i, id := range ids {
		if dsts[i] == nil {
			continue
		}
		dst, n, err := t.read(ctx, id, ds[i], dsts[i])
		if err == nil && ds[i].Bundled() && len(ids) == t.Together(t.stage.layoutOf(ids)) {
			return t.unbundle(ctx, id, ds, dsts)
		}
		if err != nil {
			return err
		}
		if _, err := t.finish(ctx, id, ds[i], dst, n); err != nil {
			return err
		}
	}
	return nil
}

// layoutOf some ids.
func (s *Stage) layoutOf(ids []part.ID) storage.Layout {
	list := make(storage.Layout, len(ids))
	for i, id := range ids {
		list[i] = storage.PartSpec{Group: id.Group, Span: id.Span, HeadGroup: id.HeadGroup}
	}
	return list
}

// one decodes the bundle that part id is a slice of for this part only.
func (t *Tier) one(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) error {
	b := t.stage.bundles[sectionOf(id)]
	if b == nil || int(id.HeadGroup) >= b.parts {
		return fault.New(fault.Miss, "part.encoding", "nothing here decodes it").With(d.Encoding, nil)
	}
	ds, dsts := make([]*part.Descriptor, b.parts), make([][]byte, b.parts)
	ds[id.HeadGroup], dsts[id.HeadGroup] = d, dst
	return t.unbundle(ctx, id, ds, dsts)
}

// unbundle reads the bundle that part id belongs to and decodes it into those of
// its parts that dsts has. On an error they have nothing of it.
func (t *Tier) unbundle(ctx context.Context, id part.ID, ds []*part.Descriptor, dsts [][]byte) error {
	b := t.stage.bundles[sectionOf(id)]
	wanted := 0
	for i := range dsts {
		if dsts[i] != nil {
			dsts[i] = dsts[i][:b.part.RawSize():b.part.RawSize()]
			wanted++
		}
	}
	// Somebody may replace the chunk while its parts are read; a second time, they
	// are what is wrong.
	at, err := t.tryUnbundle(ctx, b, id, ds, dsts)
	if at == atSlices {
		at, err = t.tryUnbundle(ctx, b, id, ds, dsts)
	}
	switch {
	case err == nil:
		return nil
	case at == atTier: // which has dealt with it
		for _, dst := range dsts {
			clear(dst)
		}
		return err
	}
	return t.failed(ctx, id.Chunk, err, wanted, dsts...)
}

// failedAt is what could not be done with a bundle.
type failedAt uint8

const (
	// atTier: to read a slice.
	atTier failedAt = iota
	// atSlices: to make one object of them.
	atSlices
	// atObject: to decode it.
	atObject
)

func (t *Tier) tryUnbundle(ctx context.Context, b *bundle, id part.ID, ds []*part.Descriptor, dsts [][]byte) (failedAt, error) {
	p := t.stage.pool
	// Slices come where their parts are to be; those of others, and the object,
	// take memory, which is reserved at once: who has some never waits for more.
	weight := p.decodeWeight(b.shape, true)
	var extra []byte
	var release func()
	if slices.ContainsFunc(dsts, func(dst []byte) bool { return dst == nil }) {
		var err error
		if release, err = p.reserveRead(ctx, weight); err != nil {
			return atObject, err
		}
		defer release()
		extra = p.buffer(b.part.RawSize())
		defer p.giveBuffer(extra)
	}
	var object []byte
	defer func() { p.giveBuffer(object) }()
	list := make([]part.Descriptor, b.parts)
	for i := range list {
		id.HeadGroup = uint16(i)
		to := dsts[i]
		if to == nil {
			to = extra
		}
		n, err := t.under.Get(ctx, id, &list[i], to)
		if err != nil {
			return atTier, err
		}
		if err := b.belongs(list, i, n); err != nil {
			return atSlices, err
		}
		if release != nil {
			if object == nil {
				object = p.buffer(b.parts * n)
			}
			copy(object[i*int(list[0].StoredLength):], to[:n])
		}
	}
	width, last := int(list[0].StoredLength), int(list[b.parts-1].StoredLength)
	if release == nil {
		var err error
		if release, err = p.reserveRead(ctx, weight); err != nil {
			return atObject, err
		}
		defer release()
		object = p.buffer(width * b.parts)
		for i, dst := range dsts {
			copy(object[i*width:], dst[:list[i].StoredLength])
		}
	}
	return atObject, p.decodeBundle(ctx, b, list, object[:width*(b.parts-1)+last], ds, dsts)
}

// belongs says whether slice i, of n bytes, is of the object that the first one is
// of.
func (b *bundle) belongs(list []part.Descriptor, i, n int) error {
	first, d := &list[0], &list[i]
	switch {
	case !d.Bundled():
		return fault.New(fault.Corrupt, "part.encoding", "not a slice of a bundle").With(d.Encoding, part.EncodingBundle)
	case int(d.RawLength) != b.part.RawSize() || n != int(d.StoredLength):
		return fault.New(fault.Corrupt, "part.raw_length", "not the namespace's").With(d.RawLength, b.part.RawSize())
	case d.Table[part.CodecHeader] != first.Table[part.CodecHeader], d.Quality != first.Quality, d.Basis != first.Basis,
		d.Ordinal != first.Ordinal, d.Parent != first.Parent, d.Tokens != first.Tokens:
		return fault.New(fault.Corrupt, "part.table", "a slice of another bundle")
	case n > int(first.StoredLength), n < int(first.StoredLength) && i < b.parts-1:
		return fault.New(fault.Corrupt, "part.stored_length", "not that of a slice").With(n, first.StoredLength)
	}
	return nil
}

// decodeBundle decodes an object into those of its parts that dsts has. list are
// the descriptors of its slices; those of the raw parts come to ds.
func (p *Pool) decodeBundle(ctx context.Context, b *bundle, list []part.Descriptor, object []byte, ds []*part.Descriptor, dsts [][]byte) error {
	if err := p.wait(ctx, p.turns, 1); err != nil {
		return err
	}
	defer p.turns.Release(1)
	began := time.Now()
	h, err := p.check(&list[0], object, b.shape)
	if err != nil {
		return err
	}
	w := &layers{ctx: ctx, pool: p, h: h, object: object, shape: b.shape, bundle: b, parts: dsts}
	if err = w.all(); err == nil {
		err = b.describe(list, ds, dsts)
	}
	took := time.Since(began)
	p.count(func(st *Stats) {
		st.DecodeTime += took
		if err != nil {
			return
		}
		if h.Basis != nil {
			st.of(h.Basis.ID, func(u *BasisUse) { u.decoded(b.shape.RawSize(), took) })
		}
		for i, dst := range dsts {
			if dst != nil {
				st.Decoded++
				st.DecodedBytes += int64(len(dst))
				st.DecodedStored += int64(list[i].StoredLength)
			}
		}
	})
	return err
}

// describe makes the descriptors of the raw parts.
func (b *bundle) describe(list []part.Descriptor, ds []*part.Descriptor, dsts [][]byte) error {
	for i, dst := range dsts {
		if dst == nil {
			continue
		}
		*ds[i] = list[i]
		if err := rawDescriptor(ds[i], dst, b.part.Layers); err != nil {
			return err
		}
	}
	return nil
}
