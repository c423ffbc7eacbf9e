package speed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// armTime is how long one arm works at least.
const armTime = 60 * time.Millisecond

// variant is one way to code the objects.
type variant struct {
	name             string
	mode             codec.Mode
	finest, coarsest int
}

func (v *variant) params(s *codec.Shape) *codec.Params {
	p := &codec.Params{Finest: v.finest, Coarsest: v.coarsest}
	for _, f := range s.Fields {
		p.Fields = append(p.Fields, codec.FieldParams{Mode: v.mode, Steps: []float32{codec.DefaultStep(f.Kind)}})
	}
	return p
}

// work is the objects of one variant with one kernel, and the memory that
// coding them takes.
type work struct {
	name    string
	shape   *codec.Shape
	params  *codec.Params
	encoder *codec.Encoder
	reader  *codec.Reader
	raw     [][]byte
	out     [][]byte
	coded   [][]byte
	bits    float64 // per element, all in
}

// newWork encodes raw, each of shape s, and checks that it comes back: exactly where the variant
// is exact, the same as the reference's otherwise.
func newWork(kernel rans.Kernel, v *variant, s *codec.Shape, raw [][]byte) (*work, error) {
	c, err := rans.New(rans.Options{Kernel: kernel})
	if err != nil {
		return nil, err
	}
	reference, err := rans.New(rans.Options{Kernel: rans.Go})
	if err != nil {
		return nil, err
	}
	w := &work{name: c.Kernel().String(), shape: s, params: v.params(s), encoder: codec.NewEncoder(c), reader: codec.NewReader(c), raw: raw}
	size := 0
	for i := range raw {
		object, err := w.encoder.Encode(nil, raw[i], s, w.params)
		if err != nil {
			return nil, err
		}
		size += len(object)
		w.coded, w.out = append(w.coded, object), append(w.out, make([]byte, len(raw[i])))
		if err := w.reader.Decode(w.out[i], object, s, v.finest); err != nil {
			return nil, err
		}
	}
	want := raw[0]
	if v.mode == codec.Plain {
		want = make([]byte, len(raw[0]))
		object, err := codec.NewEncoder(reference).Encode(nil, raw[0], s, w.params)
		if err != nil || !bytes.Equal(object, w.coded[0]) {
			return nil, errors.Join(err, fmt.Errorf("%s: the object is not the reference's", v.name))
		}
		if err := codec.NewReader(reference).Decode(want, object, s, v.finest); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(w.out[0], want) {
		return nil, fmt.Errorf("%s: not what was encoded", v.name)
	}
	w.bits = float64(size) * 8 / float64(len(raw)*len(raw[0])/2)
	return w, nil
}

func (w *work) encode(i int) (err error) {
	w.coded[i], err = w.encoder.Encode(w.coded[i][:0], w.raw[i], w.shape, w.params)
	return err
}

func (w *work) decode(level int) func(i int) error {
	return func(i int) error { return w.reader.Decode(w.out[i], w.coded[i], w.shape, level) }
}

// arm measures f over the objects: uncoded bytes in GB/s.
func (w *work) arm(f func(i int) error) pairs.Arm {
	return pairs.Arm{Name: w.name, Run: func(context.Context) (pairs.Sample, error) {
		began, n := time.Now(), 0
		for i := 0; n == 0 || time.Since(began) < armTime; i = (i + 1) % len(w.raw) {
			if err := f(i); err != nil {
				return pairs.Sample{}, err
			}
			n += len(w.raw[i])
		}
		took := time.Since(began)
		return pairs.Sample{Value: float64(n) / 1e9 / took.Seconds(), Bytes: int64(n), CPU: took}, nil
	}}
}
