package rows

import "math"

// RoundMean returns the multiple of step x scale that is nearest to m, ties to
// even, at most most of them in magnitude: an integer. scale is a power of two;
// every operation is rounded to float32.
func RoundMean(m, step, scale, most float32) float32 {
	const big = 3 << 22
	r := float32(m / float32(step*scale))
	return min(max(float32(float32(r+big)-big), -most), most)
}

// MeanCost returns what it costs that means are RoundMean's instead of mean: the
// sum over channels of Log2(off^2 / the variance, which is taken to be at least
// floor). means, variances, step and scale are finite; off^2 and floor need not be.
func (o *Ops) MeanCost(mean, variance []float32, step, scale, most, floor float32) (sum uint64) {
	must(len(mean) == len(variance))
	from := 0
	if o.wide && len(mean) >= 16 {
		from = len(mean) / 16 * 16
		sum = meanCostAVX512(&mean[0], &variance[0], from/16, step, scale, most, floor)
	} else if o.avx2 && len(mean) >= 8 {
		from = len(mean) / 8 * 8
		sum = meanCostAVX2(&mean[0], &variance[0], from/8, step, scale, most, floor)
	}
	for c := from; c < len(mean); c++ {
		off := float32(mean[c] - float32(float32(step*RoundMean(mean[c], step, scale, most))*scale))
		sum += uint64(Log2(float32(float32(off*off) / max(variance[c], floor))))
	}
	return sum
}

// Log2 of 1 + x in 2^-23, linear between powers of two: an integer that every
// platform agrees on. x is not negative. From 2^40 on, and for Inf / Inf, which is
// what far too large values leave, it is that of 2^40.
func Log2(x float32) uint32 {
	if !(x < 1<<40) {
		x = 1 << 40
	}
	return math.Float32bits(float32(1+x)) - math.Float32bits(1)
}
