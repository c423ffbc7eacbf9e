package coded

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiered"
)

// Stage codes the parts of one namespace.
type Stage struct {
	pool   *Pool
	mode   Mode
	layout storage.Layout
	shapes map[place]*codec.Shape
	// calibrations of a calibrated mode, by place; fallback is why there is none
	// of a place.
	calibrations map[place]*calibration
	fallback     Fallback
	bundles      map[section]*bundle
	// mayBundle: some basis here is that of bundles, so that there may be some.
	mayBundle bool
	// written until now, as raw bytes and as they were stored: rates of other
	// namespaces and modes say nothing of this one's.
	mu          sync.Mutex
	raw, stored int64
}

// Stage of a namespace, whose parts are layout. Its mode is Effective.
func (p *Pool) Stage(d *namespace.Descriptor, layout storage.Layout, mode Mode) *Stage {
	s := &Stage{pool: p, mode: Effective(d, mode), layout: layout, shapes: shapesOf(d)}
	s.bundles = bundlesOf(d, s.shapes)
	s.mayBundle = p.opt.Bases.Bundles()
	if s.mode.Calibrated() {
		s.calibrate(d)
	}
	return s
}

// Effective is the mode that a stage of the namespace has: what the codec cannot look
// into is coded without loss, if at all.
func Effective(d *namespace.Descriptor, mode Mode) Mode {
	switch shapes := shapesOf(d); {
	case shapes == nil:
		return Raw
	case opaque(shapes):
		return min(mode, Lossless)
	}
	return mode
}

// Mode says how parts are written.
func (s *Stage) Mode() Mode { return s.mode }

// Expected is what so many raw bytes will be when they are written, by what the
// stage has written until now; before the first, as many.
func (s *Stage) Expected(raw int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == 0 {
		return raw
	}
	return int64(float64(raw) * float64(s.stored) / float64(s.raw))
}

// Over puts the stage in front of a tier.
func (s *Stage) Over(t storage.Tier) *Tier { return &Tier{t, s} }

// Tier takes and gives raw parts, and keeps coded ones in another tier.
type Tier struct {
	under storage.Tier
	stage *Stage
}

var (
	_ storage.Tier   = (*Tier)(nil)
	_ tiered.Batcher = (*Tier)(nil)
	_ tiered.Holder  = (*Tier)(nil)
)

// Name implements storage.Tier: it is the tier's under it.
func (t *Tier) Name() string { return t.under.Name() }

// Stat implements storage.Tier.
func (t *Tier) Stat(ctx context.Context, id part.ID, d *part.Descriptor) error {
	return t.under.Stat(ctx, id, d)
}

// Delete implements storage.Tier.
func (t *Tier) Delete(ctx context.Context, chunk keys.Key) (bool, error) {
	return t.under.Delete(ctx, chunk)
}

// Has implements tiered.Holder: an exact chunk would be written in the mode's
// quality, any other in its own.
func (t *Tier) Has(key keys.Key, worst uint8) bool {
	if worst == part.QualityExact {
		worst = t.stage.mode.Quality()
	}
	h, ok := t.under.(tiered.Holder)
	return ok && h.Has(key, worst)
}

// repairTimeout bounds what a load waits for the removal of a damaged chunk, which
// may wait for a disk: as long as a promotion has (storage/tiered). What is not
// gone by then is found damaged again.
const repairTimeout = 10 * time.Second

// Get implements storage.Tier. The tier under it writes raw parts straight into
// dst. Where the part is a slice of a bundle, all of that is read and decoded.
func (t *Tier) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	dst, n, err := t.read(ctx, id, d, dst)
	if err != nil {
		return n, err
	}
	return t.finish(ctx, id, d, dst, n)
}

// read what the tier under it has of a part into as much of dst as the part
// takes.
func (t *Tier) read(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) ([]byte, int, error) {
	room := len(dst)
	if shape := t.stage.shapes[placeOf(id)]; shape != nil {
		room = shape.RawSize()
	}
	if len(dst) < room {
		if err := t.under.Stat(ctx, id, d); err != nil {
			return nil, 0, err
		}
		return nil, 0, fault.New(fault.Invalid, "get.length", "the buffer is too short").With(len(dst), room)
	}
	dst = dst[:room:room]
	n, err := t.under.Get(ctx, id, d, dst)
	return dst, n, err
}

// finish makes a raw part of the n bytes that were read.
func (t *Tier) finish(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte, n int) (int, error) {
	switch {
	case d.Raw():
		return n, nil
	case d.Bundled() && t.stage.shapes[placeOf(id)] != nil:
		if err := t.one(ctx, id, d, dst); err != nil {
			return 0, err
		}
		return len(dst), nil
	}
	if err := t.decode(ctx, d, dst, n, t.stage.shapes[placeOf(id)]); err != nil {
		return 0, t.failed(ctx, id.Chunk, err, 1, dst)
	}
	return len(dst), nil
}

// failed ends a Get of so many parts: what is damaged goes with its chunk, and
// nothing is left in the buffers.
func (t *Tier) failed(ctx context.Context, chunk keys.Key, err error, parts int, dsts ...[]byte) error {
	t.stage.pool.count(func(st *Stats) {
		for range parts {
			st.notDecoded(err)
		}
	})
	if k, _ := fault.KindOf(err); k == fault.Corrupt {
		// Whoever asked may have gone; the chunk must go all the same.
		repair, cancel := context.WithTimeout(context.WithoutCancel(ctx), repairTimeout)
		defer cancel()
		_, e := t.under.Delete(repair, chunk)
		err = errors.Join(err, e)
	}
	for _, dst := range dsts {
		clear(dst)
	}
	return err
}

func (t *Tier) decode(ctx context.Context, d *part.Descriptor, dst []byte, n int, shape *codec.Shape) error {
	switch {
	case shape == nil || !d.Coded():
		return fault.New(fault.Miss, "part.encoding", "nothing here decodes it").With(d.Encoding, nil)
	case int(d.RawLength) != len(dst):
		return fault.New(fault.Corrupt, "part.raw_length", "not the namespace's").With(d.RawLength, len(dst))
	}
	return t.stage.pool.decode(ctx, d, dst, n, shape)
}

// Put implements storage.Tier.
func (t *Tier) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	outs, err := t.PutParts(ctx, []storage.PartBytes{{Part: d, Bytes: src}})
	return outs[0], err
}

// PutParts implements tiered.Batcher: parts are coded side by side. Nothing is
// written where one is refused before that.
func (t *Tier) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	if t.stage.mode == Raw {
		return tiered.PutParts(ctx, t.under, list)
	}
	w := t.stage.writing(list)
	release, err := t.stage.pool.reserveWrite(ctx, w.weight())
	if err != nil {
		t.stage.pool.count(func(st *Stats) { st.notEncoded(err, len(list)) })
		return rejected(len(list)), err
	}
	defer release()
	defer w.giveBack()
	if err := w.encode(ctx); err != nil {
		return rejected(len(list)), err
	}
	outs, err := tiered.PutParts(ctx, t.under, w.coded)
	return outs, errors.Join(err, t.unmix(ctx, w, outs))
}

func rejected(n int) []storage.Outcome {
	outs := make([]storage.Outcome, n)
	for i := range outs {
		outs[i] = storage.Rejected
	}
	return outs
}

// encode a raw part as the mode says; any other is as it is.
func (s *Stage) encode(ctx context.Context, p storage.PartBytes) (storage.PartBytes, error) {
	// What is damaged must not be coded: its checksums would be right again.
	if _, err := s.layout.Admit(p.Part, p.Bytes); err != nil || !p.Part.Raw() {
		return p, err
	}
	mode := s.mode
	if p.Part.Quality != part.QualityExact && mode > Lossless {
		mode = Lossless
	}
	shape := s.shapes[placeOf(p.Part.ID)]
	d := *p.Part
	params := mode.params(shape)
	if mode.Calibrated() {
		params, d.Basis = s.paramsOf(p.Part, shape)
	}
	object, err := s.pool.encodeBy(ctx, p.Bytes, shape, &params)
	if err != nil {
		s.pool.count(func(st *Stats) { st.notEncoded(err, 1) })
		return p, err
	}
	d.Quality = max(d.Quality, mode.Quality())
	shorter := len(object) < len(p.Bytes)
	if shorter {
		p.Bytes = object
		if err := describe(&d, object, mode); err != nil {
			return p, err
		}
	} else {
		d.Basis = 0
		s.pool.giveBuffer(object)
	}
	s.pool.count(func(st *Stats) {
		if !shorter {
			st.Kept++
			return
		}
		st.Encoded++
		st.EncodedBytes += int64(d.RawLength)
		st.EncodedStored += int64(d.StoredLength)
	})
	s.wrote(int(d.RawLength), int(d.StoredLength))
	p.Part = &d
	return p, part.Seal(&d)
}
