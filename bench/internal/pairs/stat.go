package pairs

import (
	"math/rand/v2"
	"slices"
)

// Interval is the central 90 % of a bootstrap distribution.
type Interval struct {
	Low, High float64
}

// Median returns the middle of xs, the mean of the two middle ones where
// their number is even, and 0 of none. It does not change xs.
func Median(xs []float64) float64 {
	return Quantile(xs, 0.5)
}

// Quantile returns the value below which the share q (0..1) of xs lies,
// interpolated between neighbours, and 0 of none. It does not change xs.
func Quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	return sorted(s, q)
}

func sorted(s []float64, q float64) float64 {
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	f := at - float64(i)
	return s[i]*(1-f) + s[i+1]*f
}

// Bootstrap draws resamples of xs with replacement and returns the 5th and
// 95th percentile of their medians.
func Bootstrap(rng *rand.Rand, xs []float64, resamples int) Interval {
	if len(xs) == 0 {
		return Interval{}
	}
	medians := make([]float64, resamples)
	draw := make([]float64, len(xs))
	for i := range medians {
		for j := range draw {
			draw[j] = xs[rng.IntN(len(xs))]
		}
		slices.Sort(draw)
		medians[i] = sorted(draw, 0.5)
	}
	slices.Sort(medians)
	return Interval{Low: sorted(medians, 0.05), High: sorted(medians, 0.95)}
}
