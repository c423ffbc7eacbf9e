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
