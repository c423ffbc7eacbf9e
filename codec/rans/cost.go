package rans

import (
	"math"
	"math/bits"
)

// Cost returns what symbols with this histogram cost in bits times 65536, by
// the table's frequencies alone. It is exact integer arithmetic, so that an
// encoder that chooses by it chooses the same everywhere. A symbol without a
// slot gives math.MaxUint64.
func (t *Table) Cost(hist *[Slots]uint32) uint64 {
	var sum uint64
	for s, c := range hist {
		if c == 0 {
			continue
		}
		f := t.Freq(byte(s))
		if f == 0 {
			return math.MaxUint64
		}
		sum += uint64(c) * uint64(8<<16-log2(uint32(f)))
	}
	return sum
}

// log2 returns floor(65536 log2(f)) or a little less, for f from 1 to 256, by
// repeated squaring of a mantissa of 31 fractional bits.
func log2(f uint32) uint32 {
	whole := bits.Len32(f) - 1
	m := uint64(f) << (31 - whole)
	r := uint32(whole)
	for range 16 {
		m = m * m >> 31
		r <<= 1
		if m >= 1<<32 {
			r |= 1
			m >>= 1
		}
	}
	return r
}
