package basis

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// orthonormal is a random matrix of n reflections' product.
func orthonormal(g *rand.Rand, n int) []float32 {
	m := make([]float64, n*n)
	for i := range n {
		m[i*n+i] = 1
	}
	for range 3 {
		v, norm := make([]float64, n), 0.
		for i := range v {
			v[i] = g.NormFloat64()
			norm += v[i] * v[i]
		}
		for i := range n {
			s := 0.
			for j := range n {
				s += m[i*n+j] * v[j]
			}
			for j := range n {
				m[i*n+j] -= 2 * s / norm * v[j]
			}
		}
	}
	out := make([]float32, n*n)
	for i, v := range m {
		out[i] = float32(v)
	}
	return out
}

// newBytes is a basis of the shape, with steps of 0.1.
func newBytes(tb testing.TB, s *Shape, seed uint64) []byte {
	tb.Helper()
	g := rand.New(rand.NewPCG(seed, 1))
	var list []Transform
	for i := range s.Units() {
		_, f, _ := s.UnitOf(i)
		n := s.Size(f)
		t := Transform{Mean: make([]float32, n), Steps: make([]uint16, n), Classes: make([]uint8, n), Matrix: orthonormal(g, n)}
		for k := range n {
			t.Mean[k] = float32(g.NormFloat64())
			if k == 1 {
				t.Mean[k] = float32(math.Copysign(0, -1)) // is written as 0
			}
			t.Steps[k] = nearest(.1)
			t.Classes[k] = uint8(k * s.Fields[f].Classes / n)
		}
		list = append(list, t)
	}
	turn := make([]float64, s.Rope.Dims/2)
	for i := range turn {
		turn[i] = math.Pow(10000, -2*float64(i)/float64(s.Rope.Dims))
	}
	b, err := Append(nil, s, turn, list)
	require.NoError(tb, err)
	return b
}

func small() *Shape {
	return &Shape{Unit: Part, FirstLayer: 2, Layers: 2, Heads: 4, Joined: 2, Fields: []Field{{1, 3, 6}, {2, 1, 5}}, Rope: Rope{Halves, 4, 600}}
}
