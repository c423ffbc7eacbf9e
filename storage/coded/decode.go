package coded

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
)

// decode the object that lies at the beginning of dst into all of it, and make d
// the descriptor of the raw part. dst has the shape's size.
func (p *Pool) decode(ctx context.Context, d *part.Descriptor, dst []byte, stored int, shape *codec.Shape) error {
	release, err := p.reserveRead(ctx, p.decodeWeight(shape, d.Basis != 0))
	if err != nil {
		return err
	}
	defer release()
	if err := p.wait(ctx, p.turns, 1); err != nil {
		return err
	}
	defer p.turns.Release(1)
	began := time.Now()
	// A copy, since whoever maps dst may write to it: what is verified from here
	// on is what is decoded.
	object := p.buffer(stored)
	defer p.giveBuffer(object)
	copy(object, dst)
	by, err := p.decodeAll(ctx, d, dst, object, shape)
	if err == nil {
		err = rawDescriptor(d, dst, shape.Layers)
	}
	took := time.Since(began)
	p.count(func(st *Stats) {
		st.DecodeTime += took
		if err == nil {
			if by != nil {
				st.of(by.ID, func(u *BasisUse) { u.decoded(len(dst), took) })
			}
			st.Decoded++
			st.DecodedBytes += int64(len(dst))
			st.DecodedStored += int64(stored)
		}
	})
	return err
}

// decodeAll also says by which basis it decoded, if any.
func (p *Pool) decodeAll(ctx context.Context, d *part.Descriptor, dst, object []byte, shape *codec.Shape) (*codec.BasisRef, error) {
	h, err := p.check(d, object, shape)
	if err != nil {
		return nil, err
	}
	w := &layers{ctx: ctx, pool: p, h: h, object: object, dst: dst, shape: shape}
	return h.Basis, w.all()
}

// check an object against its descriptor and the shape that it should have.
func (p *Pool) check(d *part.Descriptor, object []byte, shape *codec.Shape) (*codec.Header, error) {
	h, err := codec.Parse(object)
	switch {
	case err != nil:
		return nil, err
	case h.ObjectSize != int64(len(object)) || binary.LittleEndian.Uint64(object[h.Size-8:]) != d.Table[part.CodecHeader]:
		return nil, fault.New(fault.Corrupt, "coded.header", "the object is not the one that the descriptor names").With(h.ObjectSize, len(object))
	case !shape.Equal(h.Uncoded()): // before anything is looked up by the shape's layers
		return nil, fault.New(fault.Corrupt, "coded.shape", "the object is not of the namespace's shape").With(*h.Uncoded(), *shape)
	case basisOf(h) != d.Basis:
		return nil, fault.New(fault.Corrupt, "coded.basis", "not the one that the descriptor names").With(basisOf(h), d.Basis)
	}
	if level, lossy := h.Lossy(); lossy && d.Quality < qualityOf(level) {
		return nil, fault.New(fault.Corrupt, "coded.quality", "better than the object's level").With(d.Quality, qualityOf(level))
	}
	return h, nil
}

// all decodes all layers, in this goroutine and others while turns are free.
func (w *layers) all() error {
	p, shape := w.pool, w.shape
	// A unit by itself takes nearly as long as two.
	w.step = 1 + len(shape.Fields)*w.h.Heads%2
	var others sync.WaitGroup
	for range (shape.Layers - 1) / w.step {
		if !p.turns.TryAcquire(1) {
			break
		}
		others.Go(func() {
			defer p.turns.Release(1)
			w.run()
		})
	}
	w.run()
	others.Wait()
	return w.err
}

// layers of an object that several decode.
type layers struct {
	ctx    context.Context
	pool   *Pool
	h      *codec.Header
	object []byte
	// dst of a part; a bundle's layers are decoded by themselves, and copied into
	// those of its parts that are not nil.
	dst    []byte
	bundle *bundle
	parts  [][]byte
	shape  *codec.Shape
	// step is how many layers one takes at a time.
	step int
	next atomic.Int64

	once sync.Once
	err  error
}

// run decodes layers until there are none, or one has failed.
func (w *layers) run() {
	r := take(w.pool, &w.pool.readers, w.pool.newReader)
	if w.shape.RawSize() <= w.pool.keep {
		defer give(w.pool, &w.pool.readers, r)
	}
	passes := make([][]byte, w.h.Coarsest-w.h.Finest+1)
	for {
		low := int(w.next.Add(int64(w.step))) - w.step
		if low >= w.shape.Layers {
			return
		}
		high := min(low+w.step, w.shape.Layers)
		err := w.ctx.Err()
		if err != nil {
			err = stopped(err)
		} else {
			for p := range passes {
				at, n := w.h.Range(p, low, high)
				passes[p] = w.object[at : at+n]
			}
			err = w.decode(r, passes, low, high)
		}
		if err != nil {
			w.next.Store(int64(w.shape.Layers)) // nobody begins another
			w.once.Do(func() { w.err = err })
			return
		}
	}
}

func (w *layers) decode(r *codec.Reader, passes [][]byte, low, high int) error {
	level, size := w.h.Finest, w.shape.LayerSize()
	if w.bundle == nil {
		return r.DecodeLayers(w.dst[low*size:high*size], w.h, w.shape, passes, low, high, level)
	}
	b := w.pool.buffer((high - low) * size)
	defer w.pool.giveBuffer(b)
	err := r.DecodeLayers(b, w.h, w.shape, passes, low, high, level)
	if err == nil {
		w.bundle.scatter(w.parts, b, low, high)
	}
	return err
}

func (p *Pool) newReader() *codec.Reader {
	r := codec.NewReader(p.coder)
	r.SetBases(p.opt.Bases.Find)
	return r
}

// rawDescriptor makes d that of the decoded bytes.
func rawDescriptor(d *part.Descriptor, raw []byte, layers int) (err error) {
	origin := append([]uint64(nil), d.Table[part.CodecBytes+1:]...)
	r := *d
	r.Encoding, r.EncodingVersion, r.Basis = part.EncodingRaw, part.RawVersion, 0
	r.StoredLength = r.RawLength
	if r.Table, err = part.Checksums(d.Table[:0], raw, layers); err != nil {
		return err
	}
	if err := part.Seal(&r); err != nil {
		return err
	}
	if len(origin) > 0 && origin[0] != r.Checksum {
		return fault.New(fault.Corrupt, "coded.origin", "part %v did not decode to the bytes that it was made of", d.ID)
	}
	*d = r
	return nil
}
