package coding

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// Way is one way to code parts: a mode, and the levels of an object.
type Way struct {
	Mode             codec.Mode
	Finest, Coarsest int
}

// Params are those of the way for a shape, with the default steps.
func (w *Way) Params(s *codec.Shape) *codec.Params {
	p := &codec.Params{Finest: w.Finest, Coarsest: w.Coarsest}
	for _, f := range s.Fields {
		mode := w.Mode
		if f.Kind == codec.Opaque {
			mode = min(mode, codec.Lossless)
		}
		p.Fields = append(p.Fields, codec.FieldParams{Mode: mode, Steps: []float32{codec.DefaultStep(f.Kind)}})
	}
	return p
}

// Part is what becomes one object.
type Part struct {
	Shape  *codec.Shape
	Params *codec.Params
	Raw    []byte
}

// Work is parts, their objects with one kernel, and the memory that coding them
// takes: that of the parts once more, the objects, and an Encoder's and a Reader's.
type Work struct {
	Turns
	kernel  rans.Kernel
	encoder *codec.Encoder
	reader  *codec.Reader
	parts   []Part
	out     [][]byte
	coded   [][]byte
}

// New encodes all parts, of which there is at least one, and checks that they come
// back: exactly where that is the way, as from the reference otherwise. The first one's
// object is the reference's. bases may be nil.
func New(kernel rans.Kernel, parts []Part, bases codec.Bases) (*Work, error) {
	c, err := rans.New(rans.Options{Kernel: kernel})
	if err != nil {
		return nil, err
	}
	w := &Work{kernel: c.Kernel(), encoder: codec.NewEncoder(c), reader: codec.NewReader(c), parts: parts}
	w.reader.SetBases(bases)
	w.out, w.coded = make([][]byte, len(parts)), make([][]byte, len(parts))
	for i := range parts {
		w.Bytes = append(w.Bytes, len(parts[i].Raw))
		w.out[i] = make([]byte, len(parts[i].Raw))
		if err := w.Encode(i); err != nil {
			return nil, err
		}
		if err := w.Decode(parts[i].Params.Finest)(i); err != nil {
			return nil, err
		}
		if exact(parts[i].Params) && !bytes.Equal(w.out[i], parts[i].Raw) {
			return nil, fmt.Errorf("part %d: not what was encoded", i)
		}
	}
	return w, w.compare(bases)
}

func exact(p *codec.Params) bool {
	for _, f := range p.Fields {
		if f.Mode >= codec.Plain {
			return false
		}
	}
	return true
}

// compare says whether the first object, and what it decodes to, are the reference's.
func (w *Work) compare(bases codec.Bases) error {
	reference, err := rans.New(rans.Options{Kernel: rans.Go})
	if err != nil {
		return err
	}
	p := &w.parts[0]
	object, err := codec.NewEncoder(reference).Encode(nil, p.Raw, p.Shape, p.Params)
	if err != nil || !bytes.Equal(object, w.coded[0]) {
		return errors.Join(err, errors.New("the object is not the reference's"))
	}
	r, want := codec.NewReader(reference), make([]byte, len(p.Raw))
	r.SetBases(bases)
	if err := r.Decode(want, object, p.Shape, p.Params.Finest); err != nil {
		return err
	}
	if !bytes.Equal(want, w.out[0]) {
		return errors.New("what the object decodes to is not the reference's")
	}
	return nil
}

// Kernel that is measured.
func (w *Work) Kernel() rans.Kernel { return w.kernel }

// Objects are the coded parts. They are valid until the next Encode.
func (w *Work) Objects() [][]byte { return w.coded }

// Size is the bytes of all objects.
func (w *Work) Size() int64 {
	n := int64(0)
	for _, o := range w.coded {
		n += int64(len(o))
	}
	return n
}

// Encode encodes a part.
func (w *Work) Encode(i int) (err error) {
	p := &w.parts[i]
	w.coded[i], err = w.encoder.Encode(w.coded[i][:0], p.Raw, p.Shape, p.Params)
	return err
}

// Decode returns what decodes a part at the level. Decoded has its bytes.
func (w *Work) Decode(level int) func(i int) error {
	return func(i int) error { return w.reader.Decode(w.out[i], w.coded[i], w.parts[i].Shape, level) }
}

// Decoded are the bytes that Decode made last of a part.
func (w *Work) Decoded(i int) []byte { return w.out[i] }
