package basis

import "math"

// FMA returns a x b + c, rounded once to float32: what a fused instruction gives.
//
// The product is exact in float64, and the sum is rounded there. Rounding that
// again to float32 goes wrong only from the middle between two float32, or where
// float32 has fewer bits: there the sum is first rounded to odd, which keeps on
// which side it was.
func FMA(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	s := float64(p + float64(c))
	if bits := math.Float64bits(s); bits<<35 != 1<<63 && bits>>52&0x7ff > 1023-126 {
		return float32(s)
	}
	return roundOdd(p, float64(c))
}

// addRow adds a x m[i] to sums[i], fused, for all of m: FMA, written out because
// that is too large to be inlined.
func addRow(sums []float32, a float32, m []float32) {
	w := float64(a)
	for i, v := range sums[:len(m)] {
		p, c := w*float64(m[i]), float64(v)
		s := float64(p + c)
		if bits := math.Float64bits(s); bits<<35 == 1<<63 || bits>>52&0x7ff <= 1023-126 {
			sums[i] = roundOdd(p, c)
			continue
		}
		sums[i] = float32(s)
	}
}

// roundOdd adds, and rounds over an odd float64.
//
//go:noinline
func roundOdd(a, b float64) float32 {
	s := a + b
	// What the sum lost, exactly.
	v := float64(s - a)
	lost := float64(float64(a-float64(s-v)) + float64(b-v))
	if bits := math.Float64bits(s); lost != 0 && bits&1 == 0 {
		if lost > 0 == (s > 0) {
			bits++
		} else {
			bits--
		}
		s = math.Float64frombits(bits)
	}
	return float32(s)
}
