package codec

import (
	"math"

	"github.com/larderkv/larder/codec/rows"
)

// Means centre the alphabets of channels and do nothing else: the same number
// is subtracted and added. They are worth as many bits as they save.

// chooseMeans sets z.means, z.meanBits and z.shift such that the bits of the
// means, and what a mean that is off costs the n tokens of its channel, are
// least: half a log2(1 + off^2 / variance) for each. far is the largest mean.
// false: no shift spans the means.
func (z *quantized) chooseMeans(ops *rows.Ops, mean, variance []float32, far, step float32, n int) bool {
	best := uint64(math.MaxUint64)
	for _, width := range [...]uint8{0, 3, 4, 5, 6, maxMeanBits} {
		shift, ok := meanShift(far, step, width)
		if !ok {
			continue
		}
		price := uint64(width) * uint64(len(mean)) << 24 // in halves of 2^-23 bits
		price += uint64(n) * ops.MeanCost(mean, variance, step, pow2(int(shift)), mostMean(width), float32(step*step)/12)
		if price < best {
			best, z.meanBits, z.shift = price, width, shift
		}
	}
	if best == math.MaxUint64 {
		return false
	}
	resize(&z.means, len(mean))
	for c, m := range mean {
		z.means[c] = int8(rows.RoundMean(m, step, pow2(int(z.shift)), mostMean(z.meanBits)))
	}
	return true
}

// mostMean is the greatest number of width bits that stands for a mean.
func mostMean(width uint8) float32 {
	if width == 0 {
		return 0
	}
	return float32(int(1)<<(width-1) - 1)
}

// meanShift is the least shift with which width bits span far.
func meanShift(far, step float32, width uint8) (int8, bool) {
	if width == 0 {
		return minShift, true
	}
	for shift := int8(minShift); shift <= maxShift; shift++ {
		if float32(far/step) <= mostMean(width)*pow2(int(shift)) {
			return shift, true
		}
	}
	return 0, false
}

// packedMeans returns the means as numbers of meanBits bits, in *buffer's
// memory.
func (z *quantized) packedMeans(buffer *[]uint8) []uint8 {
	packed := resize(buffer, len(z.means))
	for c, m := range z.means {
		packed[c] = uint8(int(m) + 1<<z.meanBits>>1)
	}
	return packed
}

// readMeans is the reverse, from the front of *b.
func readMeans(means []int8, buffer *[]uint8, b *[]byte, width uint8) error {
	if width > maxMeanBits {
		return corrupt("means", "width").With(width, maxMeanBits)
	}
	bytes, err := cut(b, packedSize(len(means), int(width)))
	if err != nil {
		return err
	}
	packed := resize(buffer, len(means))
	if err := readPacked(packed, bytes, int(width)); err != nil {
		return err
	}
	for c, v := range packed {
		means[c] = int8(int(v) - 1<<width>>1)
	}
	return nil
}
