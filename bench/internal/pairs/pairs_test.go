package pairs

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{0, 10}, 0.05, 0.5},
		{[]float64{0, 10}, 1, 10},
	} {
		require.InDelta(t, c.want, Quantile(c.xs, c.q), 1e-12, "%v at %v", c.xs, c.q)
	}
	xs := []float64{3, 1, 2}
	Median(xs)
	require.Equal(t, []float64{3, 1, 2}, xs, "the input stays as it was")
}

// The interval must cover the true median about as often as it says.
func TestBootstrapCovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	covered := 0
	const runs = 400
	for range runs {
		xs := make([]float64, 25)
		for i := range xs {
			xs[i] = 1 + 0.1*rng.NormFloat64()
		}
		b := Bootstrap(rng, xs, 400)
		if b.Low <= 1 && 1 <= b.High {
			covered++
		}
	}
	require.InDelta(t, 0.90, float64(covered)/runs, 0.07)
}

// A machine that slows down by half during the run must not change the ratio
// of arms that differ by a fixed factor.
func TestMeasureIgnoresDrift(t *testing.T) {
	n := 0
	var order []string
	arm := func(name string, rate float64) Arm {
		return Arm{Name: name, Run: func(context.Context) (Sample, error) {
			n++
			order = append(order, name)
			return Sample{Value: rate * (1 - 0.5*float64(n)/150), Bytes: 1 << 30, CPU: 2e8}, nil
		}}
	}
	all, err := Measure(t.Context(), Plan{Pairs: 31, Seed: 1}, arm("ours", 9), arm("base", 10), arm("memcpy", 12))
	require.NoError(t, err)
	require.Len(t, all, 1)
	r := all[0]
	require.Equal(t, 32, r.N)
	require.Equal(t, []string{"ours", "base", "memcpy", "ours", "base", "memcpy", "memcpy", "base", "ours", "ours"}, order[:10])
	require.InDelta(t, 0.90, r.Against[0].Ratio, 0.01)
	require.InDelta(t, 0.75, r.Against[1].Ratio, 0.01)
	require.LessOrEqual(t, r.Against[0].Low, r.Against[0].Ratio)
	require.GreaterOrEqual(t, r.Against[0].High, r.Against[0].Ratio)
	require.InDelta(t, 1, r.Control, 0.01)
	require.True(t, r.Steady)
	require.InDelta(t, 0.2, r.CPUPerGiB, 1e-9)
}

func TestMeasureRepeatsAnUnsteadyRun(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	noisy := func(context.Context) (Sample, error) { return Sample{Value: 0.1 + rng.ExpFloat64()}, nil }
	all, err := Measure(t.Context(), Plan{Pairs: 16, Attempts: 2}, Arm{Name: "ours", Run: noisy}, Arm{Name: "base", Run: noisy})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.False(t, all[0].Steady)
	require.False(t, all[1].Steady)
}

func TestMeasureErrors(t *testing.T) {
	boom := errors.New("boom")
	bad := Arm{Name: "ours", Run: func(context.Context) (Sample, error) { return Sample{}, boom }}
	_, err := Measure(t.Context(), Plan{Pairs: 16}, bad)
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "ours")
	_, err = Measure(t.Context(), Plan{Pairs: 3}, bad)
	require.ErrorContains(t, err, "at least 15")
}
