package calibrate

import (
	"math"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// Tokens is how many tokens l has learned from.
func (l *Learner) Tokens() int { return l.units[0].tokens }

// Basis appends the basis of what l has seen to dst. progress, if not nil, is
// called after each unit with how many of all are done. l is used up. Invalid:
// there were fewer than two tokens.
func (l *Learner) Basis(dst []byte, progress func(done, all int)) ([]byte, error) {
	if l.Tokens() < 2 {
		return dst, fault.New(fault.Invalid, "tokens", "too few to learn from").With(l.Tokens(), 2)
	}
	s := &l.o.Shape
	transforms := make([]basis.Transform, len(l.units))
	// For each unit, log2 of the width of its components in steps.
	widths := make([][]float64, len(l.units))
	for i := range l.units {
		_, field, _ := s.UnitOf(i)
		transforms[i], widths[i] = l.units[i].components(l.o.Steps[field])
		l.units[i] = moments{}
		if progress != nil {
			progress(i+1, len(l.units))
		}
	}
	all := make([][]float64, len(s.Fields)) // those of a field's units, sorted
	for i := range widths {
		_, field, _ := s.UnitOf(i)
		all[field] = append(all[field], widths[i]...)
	}
	for field := range all {
		slices.Sort(all[field])
	}
	for i := range widths {
		_, field, _ := s.UnitOf(i)
		transforms[i].Classes = classes(widths[i], all[field])
	}
	return basis.Append(dst, s, l.o.Turn, transforms)
}

// components solves one unit.
func (m *moments) components(relative float32) (basis.Transform, []float64) {
	m.flush()
	n, k := len(m.sum), float64(m.tokens)
	t := basis.Transform{Mean: make([]float32, n), Steps: make([]uint16, n), Matrix: make([]float32, n*n)}
	for i := range n {
		t.Mean[i] = float32(m.sum[i] / k)
		for j := i; j < n; j++ {
			c := m.prod[i*n+j]/k - m.sum[i]/k*(m.sum[j]/k)
			m.prod[i*n+j], m.prod[j*n+i] = c, c
		}
	}
	values, z := eigen(m.prod, n)
	total := 0.0
	for _, v := range values {
		total += max(v, 0)
	}
	// A unit that never changes has any step.
	step := max(math.Sqrt(total/float64(n))*float64(relative), 0x1p-60)
	widths := make([]float64, n)
	for i, v := range values {
		t.Steps[i] = uint16((math.Float32bits(float32(step)) + 0x8000) >> 16)
		widths[i] = math.Log2(max(math.Sqrt(max(v, 0))/step, narrowest))
	}
	for i, v := range z {
		t.Matrix[i] = float32(v)
	}
	return t, widths
}

// narrowest: components below this part of the finest step are zeros at every
// level, and need no classes of their own.
const narrowest = 1. / 8

// classes sorts components by width, evenly between all but the few narrowest and
// widest of all, which are sorted.
func classes(widths, all []float64) []uint8 {
	low, high := all[len(all)/100], all[len(all)-1-len(all)/200]
	list := make([]uint8, len(widths))
	for i, w := range widths {
		if high > low {
			list[i] = uint8(min(max((w-low)/(high-low)*basis.MaxClasses, 0), basis.MaxClasses-1))
		}
	}
	return list
}
