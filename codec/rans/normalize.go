package rans

import "math/bits"

// histBits bounds scaled counts, so that a squared count times the product of
// two neighbouring frequencies fits 64 bits.
const histBits = 24

// Normalize sets freq to frequencies that sum to Slots, at least 1 for every
// symbol that hist counts and 0 for all others, and returns the number of
// symbols. The rule is exact integer arithmetic and part of the format of an
// encoder (FORMAT.md): every implementation gets the same frequencies. An empty
// histogram gives none, and 0.
func Normalize(freq *[Slots]uint16, hist *[Slots]uint32) int {
	*freq = [Slots]uint16{}
	var most uint32
	for _, c := range hist {
		most = max(most, c)
	}
	if most == 0 {
		return 0
	}
	shift := max(0, bits.Len32(most)-histBits)

	var count [Slots]uint64
	var total uint64
	symbols, first, last := 0, Slots, 0
	for s, c := range hist {
		if c == 0 {
			continue
		}
		count[s] = max(1, uint64(c>>shift))
		total += count[s]
		symbols++
		first, last = min(first, s), s
	}
	sum := 0
	for s, c := range count {
		if c > 0 {
			freq[s] = uint16(max(1, Slots*c/total))
			sum += int(freq[s])
		}
	}
	c, f := count[first:last+1], freq[first:last+1]
	for ; sum < Slots; sum++ {
		f[neediest(c, f)]++
	}
	for ; sum > Slots; sum-- {
		f[richest(c, f)]--
	}
	return symbols
}

// neediest returns the symbol with the largest c^2 / (f (f + 1)), the first of
// equals: the geometric mean is close to the logarithm's own rate, and needs no
// logarithm.
func neediest(count []uint64, freq []uint16) int {
	best, bestSquare, bestNext := -1, uint64(0), uint64(0)
	for s, c := range count {
		if c == 0 {
			continue
		}
		f := uint64(freq[s])
		if square, next := c*c, f*(f+1); best < 0 || square*bestNext > bestSquare*next {
			best, bestSquare, bestNext = s, square, next
		}
	}
	return best
}

// richest returns the symbol with the smallest c^2 / (f (f - 1)) among those
// that can lose a slot, the first of equals.
func richest(count []uint64, freq []uint16) int {
	best, bestSquare, bestPrev := -1, uint64(0), uint64(0)
	for s, c := range count {
		f := uint64(freq[s])
		if f < 2 {
			continue
		}
		if square, prev := c*c, f*(f-1); best < 0 || square*bestPrev < bestSquare*prev {
			best, bestSquare, bestPrev = s, square, prev
		}
	}
	return best
}
