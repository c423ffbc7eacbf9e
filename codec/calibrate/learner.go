package calibrate

import (
	"math"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
)

// Options of a Learner.
type Options struct {
	// Shape of the basis. The classes of its fields are chosen here.
	Shape basis.Shape
	// Turn has the angle at position 1 of each pair, in radians (Rope).
	Turn []float64
	// Steps of level 0 of each field, in units of a unit's rms deviation from its
	// mean: what quality costs. Keys need finer ones than values.
	Steps []float32
	// Sinks is the number of leading tokens of a prompt that say nothing about the
	// others, and are left out.
	Sinks int
}

// DefaultStep is the step of level 0 for a kind, such that L2 is about as close to
// the exact model as CacheGen is. A bundle has more components that are narrower
// than a step, and lose less than half of one: its steps may be wider.
func DefaultStep(u basis.Unit, k codec.Kind) float32 {
	switch {
	case u == basis.Bundle && k == codec.K:
		return 0.055
	case u == basis.Bundle:
		return 0.095
	case k == codec.K:
		return 0.05
	}
	return 0.085
}

// batch is the number of tokens that are added to a covariance at once: it is read
// and written once for all of them.
const batch = 8

// Learner gathers the moments of all units.
type Learner struct {
	o     Options
	units []moments
	row   []float32
}

// moments of one unit: sums over tokens of elements and of their products, the
// latter for i <= j only.
type moments struct {
	tokens    int
	sum, prod []float64
	wait      []float64 // rows that are not in prod yet
}

// New returns a Learner. Invalid: the options do not fit one another.
func New(o Options) (*Learner, error) {
	if len(o.Steps) != len(o.Shape.Fields) {
		return nil, fault.New(fault.Invalid, "steps", "one for each field").With(len(o.Steps), len(o.Shape.Fields))
	}
	o.Shape.Fields = append([]basis.Field(nil), o.Shape.Fields...)
	for i := range o.Shape.Fields {
		o.Shape.Fields[i].Classes = basis.MaxClasses
		if s := o.Steps[i]; !(s >= 1e-4 && s <= 64) {
			return nil, fault.New(fault.Invalid, "steps", "out of range").With(s, "1e-4..64")
		}
	}
	if err := o.Shape.Validate(); err != nil {
		return nil, err
	}
	if len(o.Turn) != o.Shape.Rope.Dims/2 {
		return nil, fault.New(fault.Invalid, "turn", "one angle for each pair").With(len(o.Turn), o.Shape.Rope.Dims/2)
	}
	l := &Learner{o: o, units: make([]moments, o.Shape.Units())}
	for i := range l.units {
		_, field, _ := o.Shape.UnitOf(i)
		n := o.Shape.Size(field)
		l.units[i] = moments{sum: make([]float64, n), prod: make([]float64, n*n)}
	}
	return l, nil
}

// Memory is about how many bytes l holds.
func (l *Learner) Memory() int64 {
	n := int64(0)
	for i := range l.units {
		n += 8 * int64(len(l.units[i].sum)*(1+batch)+len(l.units[i].prod))
	}
	return n
}

// Add learns from the uncoded bytes of one part whose first token has a position.
// shape has all heads and layers of the basis, and its fields. Invalid: it has
// not, the bytes have another size, or are not finite; l is then as it was.
func (l *Learner) Add(raw []byte, shape *codec.Shape, position int) error {
	s := &l.o.Shape
	if err := shape.Validate(); err != nil {
		return err
	}
	if shape.Layers != s.Layers || shape.FirstLayer != s.FirstLayer || shape.Heads != s.Heads || len(shape.Fields) != len(s.Fields) {
		return fault.New(fault.Invalid, "shape", "is not the basis's")
	}
	for i, f := range shape.Fields {
		if uint8(f.Kind) != s.Fields[i].Kind || f.Dims != s.Fields[i].Dims || f.DType == codec.U8 {
			return fault.New(fault.Invalid, "shape.fields", "field %d is not the basis's", i).With(f.Dims, s.Fields[i].Dims)
		}
	}
	if len(raw) != shape.RawSize() {
		return fault.New(fault.Invalid, "raw", "its size is not the shape's").With(len(raw), shape.RawSize())
	}
	if position < 0 || s.Rope.Pairing != basis.None && position+shape.Tokens > s.Rope.Positions {
		return fault.New(fault.Invalid, "position", "beyond the tables").With(position+shape.Tokens, s.Rope.Positions)
	}
	if !shape.Finite(raw) {
		return fault.New(fault.Invalid, "raw", "has numbers that are not finite")
	}
	cos, sin := make([]float64, len(l.o.Turn)), make([]float64, len(l.o.Turn))
	for token := max(l.o.Sinks-position, 0); token < shape.Tokens; token++ {
		for i, a := range l.o.Turn {
			sin[i], cos[i] = math.Sincos(float64(position+token) * a)
		}
		for i := range l.units {
			layer, field, block := s.UnitOf(i)
			m, dims := &l.units[i], s.Fields[field].Dims
			if cap(l.row) < dims {
				l.row = make([]float32, dims)
			}
			for head := range s.Joined {
				row := l.row[:dims]
				shape.Load(row, raw, layer, field, block*s.Joined+head, token)
				at := len(m.wait)
				for _, v := range row {
					m.wait = append(m.wait, float64(v))
				}
				if s.Turns(field) {
					turnBack(m.wait[at:], cos, sin, s.Rope.Pairing)
				}
			}
			if m.tokens++; m.tokens%batch == 0 {
				m.flush()
			}
		}
	}
	return nil
}

func turnBack(row, cos, sin []float64, p basis.Pairing) {
	half, stride := len(cos), 1
	if p == basis.Neighbours {
		half, stride = 1, 2
	}
	for i, c := range cos {
		x, y, s := &row[i*stride], &row[i*stride+half], sin[i]
		*x, *y = *x*c+*y*s, *y*c-*x*s
	}
}

// flush adds the waiting rows.
func (m *moments) flush() {
	n := len(m.sum)
	zeros := make([]float64, n)
	var rows [batch][]float64
	for k := range rows {
		if rows[k] = zeros; len(m.wait) >= (k+1)*n {
			rows[k] = m.wait[k*n : (k+1)*n]
		}
	}
	for i := range n {
		out := m.prod[i*n+i : (i+1)*n]
		var x [batch]float64
		for k := range x {
			x[k] = rows[k][i]
			m.sum[i] += x[k]
		}
		a, b, c, d := rows[0][i:][:len(out)], rows[1][i:][:len(out)], rows[2][i:][:len(out)], rows[3][i:][:len(out)]
		e, f, g, h := rows[4][i:][:len(out)], rows[5][i:][:len(out)], rows[6][i:][:len(out)], rows[7][i:][:len(out)]
		for j := range out {
			out[j] += (x[0]*a[j] + x[1]*b[j]) + (x[2]*c[j] + x[3]*d[j]) + ((x[4]*e[j] + x[5]*f[j]) + (x[6]*g[j] + x[7]*h[j]))
		}
	}
	m.wait = m.wait[:0]
}
