package basis

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The assembly gives what FMA does, bit for bit, for every number of columns and of
// components: sums that cancel, subnormal ones, and zeros of either sign.
func TestReconstruct(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 7, 8, 9, 63, 64, 65, 72, 128, 130, 200, 256} {
		for _, scale := range []float64{1, 0x1p-130, 0x1p60} {
			tr := &Transform{Mean: make([]float32, n), Matrix: make([]float32, n*n)}
			c := make([]float32, n)
			for i := range n {
				tr.Mean[i] = float32(g.NormFloat64() * scale)
				if c[i] = float32(g.NormFloat64() * scale); g.IntN(3) == 0 {
					c[i] = float32(math.Copysign(0, g.NormFloat64()))
				}
			}
			for i := range tr.Matrix {
				tr.Matrix[i] = float32(g.NormFloat64())
				if i >= n && g.IntN(4) == 0 && c[i/n] != 0 {
					// What takes back most of the component before.
					tr.Matrix[i] = -tr.Matrix[i-n] * c[i/n-1] / c[i/n]
				}
			}
			want := append([]float32(nil), tr.Mean...)
			for j, v := range c {
				for d := range want {
					if v != 0 {
						want[d] = FMA(v, tr.Matrix[j*n+d], want[d])
					}
				}
			}
			for _, wide := range []bool{false, hasFMA()} {
				got := make([]float32, n)
				tr.reconstruct(got, c, wide)
				for d := range want {
					require.Equal(t, math.Float32bits(want[d]), math.Float32bits(got[d]), "%d of %d, wide %v", d, n, wide)
				}
			}
		}
	}
}

func bitsOf(x []float32) []uint32 {
	b := make([]uint32, len(x))
	for i, v := range x {
		if b[i] = math.Float32bits(v); v != v {
			b[i] = 0x7fc00000
		}
	}
	return b
}

// The assembly projects as Go does: whole blocks of tokens and others, sums that
// cancel, and what overflows.
func TestProject(t *testing.T) {
	g := rand.New(rand.NewPCG(3, 4))
	var work []float32
	for _, n := range []int{1, 4, 8, 12, 64, 72, 128} {
		for _, tokens := range []int{1, 15, 16, 17, 32, 53} {
			for _, scale := range []float64{1, 0x1p-140, 0x1p126} {
				tr := &Transform{Mean: make([]float32, n), Matrix: make([]float32, n*n)}
				for i := range tr.Matrix {
					tr.Matrix[i] = float32(g.NormFloat64())
				}
				x := make([]float32, tokens*n)
				for i := range x {
					if x[i] = float32(g.NormFloat64() * scale); i >= 1 && g.IntN(4) == 0 {
						x[i] = -x[i-1]
					}
				}
				want := make([]float32, tokens*n)
				tr.project(want, x, &work, false, false)
				for _, widest := range []bool{false, hasAVX512()} {
					got := make([]float32, tokens*n+1)
					got[tokens*n] = 7
					tr.project(got[:tokens*n:tokens*n], x, &work, hasFMA(), widest)
					require.Equal(t, bitsOf(want), bitsOf(got[:tokens*n]), "%d x %d", tokens, n)
					require.InDelta(t, 7, got[tokens*n], 0)
				}
			}
		}
	}
}

// So it turns, and turns back.
func TestTurnWide(t *testing.T) {
	g := rand.New(rand.NewPCG(5, 6))
	for _, pairing := range []Pairing{Halves, Neighbours} {
		for _, dims := range []int{2, 8, 10, 16, 30, 32, 64, 128} {
			const heads, rest = 3, 5
			b := &Basis{Shape: Shape{Rope: Rope{pairing, dims, 1 << 10}}, low: make([]float32, lowRows*dims), high: make([]float32, 4*dims)}
			for _, table := range [][]float32{b.low, b.high} {
				for i := range table {
					table[i] = float32(g.NormFloat64())
					if g.IntN(8) == 0 {
						table[i] = 0
					}
				}
			}
			row := make([]float32, heads*(dims+rest))
			for i := range row {
				row[i] = float32(g.NormFloat64())
				if g.IntN(8) == 0 {
					row[i] = float32(math.Copysign(0, float64(row[i])))
				}
			}
			for _, position := range []int{0, 255, 256, 1000} {
				want, got := make([]float32, dims), append(make([]float32, dims), 7)
				b.turn(want, position, false)
				b.turn(got[:dims:dims], position, hasFMA())
				require.Equal(t, bitsOf(want), bitsOf(got[:dims]))
				require.InDelta(t, 7, got[dims], 0)
				for _, back := range []bool{false, true} {
					one, other := append([]float32{}, row...), append([]float32{}, row...)
					b.rotate(one, want, dims+rest, back, false)
					b.rotate(other, want, dims+rest, back, hasFMA())
					require.Equal(t, bitsOf(one), bitsOf(other), "%d dims, back %v", dims, back)
				}
			}
		}
	}
}
