package codec

import "math"

const (
	// maxValue bounds a quantized value in steps of level 0: bf16 step x value
	// is then exact in float32.
	maxValue = 1<<15 - 1
	// A mean is a number of at most maxMeanBits bits x step x 2^shift.
	maxMeanBits        = 8
	minShift, maxShift = -6, 10
	// Steps beyond these leave the range in which products are exact.
	minStepExp, maxStepExp = -90, 90
)

// pow3 has the ratio of a level's step to that of level 0.
var pow3 = [L3 + 1]int32{1, 3, 9, 27}

// quantized is a unit in steps.
type quantized struct {
	step  uint16 // bf16
	shift int8
	// means fit meanBits bits; all are 0 if those are 0.
	meanBits uint8
	means    []int8
	// q has tokens x dims values at the finest level of the object, where they
	// are kept (keepsValues); rows of sinks are 0.
	q []int16
	// variance is the class statistic of each channel, relative to the mean
	// over channels.
	variance []float32
}

// meanOf is exact: 8 bits x 7 bits.
func meanOf(step float32, value int8, shift int8) float32 {
	return float32(step*float32(value)) * pow2(int(shift))
}

func pow2(e int) float32 { return math.Float32frombits(uint32(127+e) << 23) }

// chooseSteps computes the steps, means and variances of one unit from the rows
// behind its sinks, which are kept elsewhere. false: this unit has no steps that
// fit; keep it exactly.
//
// Every operation is one float32 operation in a fixed order (conversions keep
// compilers from fusing), channel by channel over tokens, so that any
// implementation that works on channels in parallel gets the same object.
func (z *quantized) chooseSteps(x *source, relative float32) bool {
	n, dims, pivot := x.tokens, len(x.pivot), x.pivot
	if n < 2 {
		return false
	}
	mean := resize(&z.variance, 2*dims)[dims:]
	sq := z.variance[:dims]
	x.sums(mean, sq)
	inv := 1 / float32(n)
	total, far := float32(0), float32(0)
	for c := range dims {
		m := float32(mean[c] * inv)
		v := max(float32(float32(sq[c]*inv)-float32(m*m)), 0)
		sq[c] = v
		total = float32(total + v)
		mean[c] = float32(pivot[c] + m)
		far = max(far, abs(mean[c]))
	}
	average := float32(total * float32(1/float32(dims)))
	if !(average > 0) || average > math.MaxFloat32/2 {
		return false
	}
	rms := float32(math.Sqrt(float64(average)))
	z.step = bf16(float32(rms * relative))
	step := fromBF16(z.step)
	if step < pow2(minStepExp) || step > pow2(maxStepExp) {
		return false
	}
	if !z.chooseMeans(x.ops, mean, sq, far, step, n) {
		return false
	}
	for c := range sq {
		sq[c] = float32(sq[c] / average)
	}
	z.variance = z.variance[:dims]
	return true
}

// inSteps returns what brings an element into steps of level finest: the mean of
// its channel, in *buffer's memory, to subtract, a factor, and what the product
// must be below.
func (z *quantized) inSteps(buffer *[]float32, finest int) (mean []float32, inv, limit float32) {
	step := fromBF16(z.step)
	mean = resize(buffer, len(z.means))
	for c, m := range z.means {
		mean[c] = meanOf(step, m, z.shift)
	}
	return mean, 1 / float32(step*float32(pow3[finest])), limitOf(finest)
}

// limitOf is what values of level finest must be below: coarser ones round up by
// at most 13.
func limitOf(finest int) float32 { return float32((maxValue - 13) / pow3[finest]) }

// unpackMeans sets w.mean from w.means.
func (w *workspace) unpackMeans(step uint16, shift int8) []float32 {
	mean := resize(&w.mean, len(w.means))
	for c, m := range w.means {
		mean[c] = meanOf(fromBF16(step), m, shift)
	}
	return mean
}

// reconstruct writes the rows of one unit at a level, of w.q: one rounding in float32,
// one to the output type. The product is exact, so that a fused and a separate
// addition agree.
func (w *workspace) reconstruct(raw []byte, u *unit, step uint16, shift int8, level int) {
	s, mean, row, t := fromBF16(step), w.unpackMeans(step, shift), resize(&w.row, u.dims), 0
	for _, r := range w.runs {
		scale := pow3[max(level, int(r.Level))]
		if u.dtype == BF16 {
			// step x scale is exact, so that the product is rounded once here as there.
			w.ops.ReconstructBF16(raw[u.offset+t*u.stride:], u.stride, r.Tokens, w.q[t*u.dims:(t+r.Tokens)*u.dims], mean, float32(s*float32(scale)))
			t += r.Tokens
			continue
		}
		for range r.Tokens {
			in := w.q[t*u.dims : (t+1)*u.dims]
			for c, v := range in {
				row[c] = float32(float32(s*float32(int32(v)*scale)) + mean[c])
			}
			u.dtype.store(u.row(raw, t), row)
			t++
		}
	}
}

// coarser returns the value at the next coarser level: the nearest multiple of
// three steps. There are no ties.
func coarser(q int16) int16 {
	v := int32(q) + 1
	if v >= 0 {
		return int16(v / 3)
	}
	return int16((v - 2) / 3)
}

// roundEven rounds to the nearest integer, ties to even; |v| < 2^22.
func roundEven(v float32) float32 {
	const big = 3 << 22
	return float32(float32(v+big) - big)
}

func abs(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// resize makes *s have n elements, of any content.
func resize[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	*s = (*s)[:n]
	return *s
}
