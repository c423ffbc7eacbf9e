package codec

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// Calibration says by which basis the Calibrated fields of an object are coded.
type Calibration struct {
	// Basis has the transforms. Its Joined heads become one unit: the heads of an
	// object are a multiple of them.
	Basis *basis.Basis
	// Position of the first token in its prompt, and number of the first head in
	// the model. A wrong one costs bytes, not quality: it is kept in the object.
	Position, FirstHead int
	// Scale multiplies all steps: 2^-8..2^8, rounded to a bf16; 0 is 1.
	Scale float32
}

const (
	basisSize          = 48
	minScale, maxScale = 1. / 256, 256
)

// BasisRef is what an object says about its basis. It is immutable.
type BasisRef struct {
	ID   basis.ID
	Unit basis.Unit
	// Position of the first token, number of the first head, and the heads that
	// are one unit.
	Position, FirstHead, Joined int

	scale  uint16 // bf16
	fields uint8  // bit i: field i is transformed
}

func (r *BasisRef) transforms(field int) bool { return r != nil && r.fields>>field&1 != 0 }

// joined is the number of heads that are one unit.
func (h *Header) joined() int {
	if h.Basis == nil {
		return 1
	}
	return h.Basis.Joined
}

// Uncoded is the shape of the bytes that the object decodes to. (Shape is that of
// the units: joined heads are one.)
func (h *Header) Uncoded() *Shape {
	s, g := h.Shape, h.joined()
	s.Heads *= g
	s.Fields = append([]Field(nil), s.Fields...)
	for i := range s.Fields {
		s.Fields[i].Dims /= g
	}
	return &s
}

// join returns the shape in which g heads are one; g divides the heads.
func (s *Shape) join(g int) *Shape {
	c := *s
	c.Heads /= g
	c.Fields = append([]Field(nil), s.Fields...)
	for i := range c.Fields {
		c.Fields[i].Dims *= g
	}
	return &c
}

// reference returns what an object of shape says about the basis of params, nil if
// it has none, and the shape of its units.
func (p *Params) reference(shape *Shape) (*BasisRef, *Shape, error) {
	var fields uint8
	for i := range min(len(p.Fields), len(shape.Fields)) {
		if p.Fields[i].Mode == Calibrated {
			fields |= 1 << i
		}
	}
	c := p.Calibration
	if c == nil || c.Basis == nil || fields == 0 {
		if fields != 0 || c != nil {
			return nil, nil, invalid("calibration", "a basis and calibrated fields go together")
		}
		return nil, shape, nil
	}
	scale := c.Scale
	if scale == 0 {
		scale = 1
	}
	if !(scale >= minScale && scale <= maxScale) {
		return nil, nil, invalid("calibration.scale", "out of range").With(scale, "2^-8..2^8")
	}
	b := c.Basis
	r := &BasisRef{b.ID(), b.Unit, c.Position, c.FirstHead, b.Joined, bf16(scale), fields}
	if shape.Heads%b.Joined != 0 {
		return nil, nil, invalid("shape.heads", "no multiple of those that the basis joins").With(shape.Heads, b.Joined)
	}
	units := shape.join(b.Joined)
	if err := units.Validate(); err != nil {
		return nil, nil, err
	}
	if err := r.fits(b, units); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "calibration.basis", "is not for this shape")
	}
	return r, units, nil
}

// fits says whether b has a transform for each transformed unit; else Corrupt,
// which an encoder wraps.
func (r *BasisRef) fits(b *basis.Basis, units *Shape) error {
	heads := units.Heads * r.Joined
	layer := units.FirstLayer - b.FirstLayer
	switch {
	case r.Unit != b.Unit || r.Joined != b.Joined:
		return corrupt("basis", "another unit").With(r.Joined, b.Joined)
	case layer < 0 || layer+units.Layers > b.Layers:
		return corrupt("basis", "the first layer, or the number of layers").With(units.FirstLayer, b.Layers)
	case r.FirstHead < 0 || r.FirstHead%r.Joined != 0 || r.FirstHead+heads > b.Heads:
		return corrupt("basis", "the first head, or the number of heads").With(r.FirstHead, b.Heads)
	case r.Position < 0:
		return corrupt("basis", "the position").With(r.Position, 0)
	}
	for i, f := range units.Fields {
		if !r.transforms(i) {
			continue
		}
		k := b.Field(uint8(f.Kind))
		if k < 0 || b.Size(k) != f.Dims {
			return corrupt("basis", "it has no field %s of so many dims", f.Kind).With(f.Dims, nil)
		}
		if b.Turns(k) && r.Position+units.Tokens > b.Rope.Positions {
			return corrupt("basis", "position beyond its tables").With(r.Position+units.Tokens, b.Rope.Positions)
		}
	}
	return nil
}

// readBasis reads the basis section from the front of *b, and makes h the header
// of its units.
func (h *Header) readBasis(b *[]byte) error {
	if len(*b) < basisSize {
		return corrupt("basis", "ends early").With(len(*b), basisSize)
	}
	s, le := (*b)[:basisSize], binary.LittleEndian
	*b = (*b)[basisSize:]
	r := &BasisRef{ID: basis.ID(s), Unit: basis.Unit(s[42]), Position: int(le.Uint32(s[32:])), FirstHead: int(le.Uint16(s[36:])),
		Joined: int(le.Uint16(s[38:])), scale: le.Uint16(s[40:]), fields: s[43]}
	scale := fromBF16(r.scale)
	if r.Unit != basis.Part && r.Unit != basis.Bundle || r.Joined < 1 || h.Heads%r.Joined != 0 || !(scale >= minScale && scale <= maxScale) ||
		r.fields == 0 || int(r.fields)>>len(h.Fields) != 0 || le.Uint32(s[44:]) != 0 {
		return corrupt("basis", "an impossible section")
	}
	for i, f := range h.Fields {
		if r.transforms(i) && f.Kind == Opaque {
			return corrupt("basis", "opaque bytes have no transform")
		}
	}
	h.Basis, h.Shape = r, *h.join(r.Joined)
	if err := h.Shape.Validate(); err != nil {
		return fault.Wrap(fault.Corrupt, err, "object.shape", "impossible")
	}
	return nil
}

func (r *BasisRef) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, r.ID[:]...)
	dst = le.AppendUint32(dst, uint32(r.Position))
	dst = le.AppendUint16(dst, uint16(r.FirstHead))
	dst = le.AppendUint16(dst, uint16(r.Joined))
	dst = le.AppendUint16(dst, r.scale)
	return append(dst, byte(r.Unit), r.fields, 0, 0, 0, 0)
}

// transformOf returns what a transformed unit is coded by: its steps, scaled, and
// whether the position turns it. b fits h.
func (w *workspace) transformOf(b *basis.Basis, h *Header, u *unit) (t *basis.Transform, turns bool) {
	field := b.Field(uint8(h.Fields[u.field].Kind))
	t = b.Transform(h.FirstLayer+u.layer-b.FirstLayer, field, h.Basis.FirstHead/h.Basis.Joined+u.head)
	scale := fromBF16(h.Basis.scale)
	for j, s := range t.Steps[:len(resize(&w.steps, u.dims))] {
		w.steps[j] = fromBF16(bf16(float32(fromBF16(s) * scale)))
	}
	return t, b.Turns(field)
}

// regroup copies the bytes of whole layers between the order of s, head after
// head, and that of units of g heads: token after token, in a token field after
// field, in a field head after head. back: from units to s.
func regroup(raw, units []byte, s *Shape, g int, back bool) {
	row := s.RowSize()
	for i := range len(raw) / row {
		token, head := i%s.Tokens, i/s.Tokens // heads of all layers
		at := (head/g*s.Tokens + token) * g * row
		from := i * row
		for _, f := range s.Fields {
			n := f.bytes()
			a, b := raw[from:from+n], units[at+head%g*n:][:n]
			if back {
				copy(a, b)
			} else {
				copy(b, a)
			}
			from, at = from+n, at+g*n
		}
	}
}

// Load sets row, which has the field's dims, to one token of a head.
func (s *Shape) Load(row []float32, raw []byte, layer, field, head, token int) {
	u := s.unit((layer*len(s.Fields)+field)*s.Heads + head)
	u.dtype.load(row, u.row(raw, token))
}

// Finite reports whether no element of raw, which has the size of s, is a NaN or
// an infinity.
func (s *Shape) Finite(raw []byte) bool {
	for i := range s.Units() {
		u := s.unit(i)
		for t := range u.tokens {
			if !u.dtype.finite(u.row(raw, t)) {
				return false
			}
		}
	}
	return true
}
