package calibrate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkEigen: rows of z are orthonormal, and z^T values z is a.
func checkEigen(t *testing.T, a, values, z []float64) {
	t.Helper()
	n := len(values)
	require.True(t, slices.IsSortedFunc(values, func(a, b float64) int { return int(math.Copysign(1, b-a)) * boolInt(a != b) }))
	scale := 1e-300
	for _, v := range a {
		scale = max(scale, math.Abs(v))
	}
	for i := range n {
		for j := range n {
			got, unit := 0., 0.
			for k := range n {
				got += z[k*n+i] * values[k] * z[k*n+j]
				unit += z[i*n+k] * z[j*n+k]
			}
			require.InDelta(t, a[i*n+j]/scale, got/scale, 1e-12*float64(n))
			require.InDelta(t, float64(boolInt(i == j)), unit, 1e-12*float64(n))
		}
		most := 0.
		for _, v := range z[i*n : (i+1)*n] {
			if math.Abs(v) > math.Abs(most) {
				most = v
			}
		}
		require.Positive(t, most)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestEigen(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 3, 7, 40} {
		for name, entry := range map[string]func(i, j int) float64{
			"random":     func(_, _ int) float64 { return g.NormFloat64() },
			"zero":       func(_, _ int) float64 { return 0 },
			"identity":   func(i, j int) float64 { return float64(boolInt(i == j)) },
			"diagonal":   func(i, j int) float64 { return float64(boolInt(i == j) * (i%3 - 1)) },
			"rank one":   func(i, j int) float64 { return float64((i + 1) * (j + 1)) },
			"tiny":       func(_, _ int) float64 { return g.NormFloat64() * 1e-150 },
			"wide range": func(i, j int) float64 { return math.Exp(-float64(i+j)) * float64(1+i*j%5) },
		} {
			t.Run(name, func(t *testing.T) {
				a := make([]float64, n*n)
				for i := range n {
					for j := range i + 1 {
						a[i*n+j] = entry(i, j)
						a[j*n+i] = a[i*n+j]
					}
				}
				values, z := eigen(slices.Clone(a), n)
				checkEigen(t, a, values, z)
			})
		}
	}
}
