package codec

import (
	"math"

	"github.com/larderkv/larder/codec/rans"
)

// A histogram counts values of -128..127 at index value+128; plain values of
// -128 stand for everything that has no symbol of its own.
type histogram [256]uint32

// escapeAt is the price of an escaped value, as the share of a class below
// which giving a symbol one of 256 slots costs more: slots cost the others
// 1/177 of a bit for each symbol of the class, an escape 16 (plain) or 8
// (exponents) bits beside its own symbol.
const (
	escapeAtPlain    = 2840
	escapeAtExponent = 1430
)

// keep clears the counts of values that are cheaper to escape and returns how
// many symbols they were; always is escaped already.
func (h *histogram) keep(at uint32, always uint32) uint32 {
	total, rare, kinds := uint64(always), uint32(0), 0
	for _, n := range h {
		total += uint64(n)
	}
	isRare := func(n uint32) bool { return n > 0 && uint64(n)*uint64(at) < total }
	for _, n := range h {
		if isRare(n) {
			rare += n
			kinds++
		}
	}
	if always == 0 && kinds < 2 { // the escape itself needs a slot
		return 0
	}
	for i, n := range h {
		if isRare(n) {
			h[i] = 0
		}
	}
	return always + rare
}

// buildTables turns the histograms of the classes of a field into tables, in the
// memory of *dst, and returns the index of symbol 1, at most mostLow; symbol 0 is
// the escape. No more than 255 neighbouring values may occur.
func buildTables(dst *[]rans.Table, hist []histogram, beyond []uint32, at uint32, mostLow int) (low int) {
	escapes := make([]uint32, len(hist))
	low = mostLow
	for c := range hist {
		escapes[c] = hist[c].keep(at, beyond[c])
		for v, n := range hist[c] {
			if n > 0 {
				low = min(low, v)
			}
		}
	}
	tables := resize(dst, len(hist))
	for c := range hist {
		var counts [256]uint32
		var freq [256]uint16
		counts[0] = escapes[c]
		for v := low; v < min(low+255, 256); v++ {
			counts[v-low+1] = hist[c][v]
		}
		if rans.Normalize(&freq, &counts) == 0 {
			freq[0] = rans.Slots
		}
		if err := tables[c].Build(&freq); err != nil {
			panic(err) // Normalize gives what Build takes
		}
	}
	return low
}

// varianceClass sorts channels by how wide they are: half octaves of the
// standard deviation around the unit's rms.
func varianceClass(relative float32) uint8 {
	const lowest = -6 // log2 of the first boundary
	e := int(math.Float32bits(relative)>>23) - 127
	return uint8(min(max(e-lowest+1, 0), maxClasses-1))
}

// compactClasses numbers the classes that have members, and returns how many
// there are. A class at either end that has less than 1 of 64 channels joins
// its neighbour: a table, and an entry of the class map, cost more.
func compactClasses(members *[maxClasses]int, number *[maxClasses]uint8) int {
	total := 0
	for _, n := range members {
		total += n
	}
	if total == 0 {
		return 0
	}
	end := func(from, by int) int {
		c, sum := from, 0
		for ; c+by >= 0 && c+by < maxClasses; c += by {
			if sum += members[c]; 64*sum >= total {
				break
			}
		}
		return c
	}
	low, high := end(0, 1), end(maxClasses-1, -1)
	n := 0
	for c := range members {
		switch {
		case c <= low:
			number[c] = 0
			n = 1
		case c >= high:
			if c == high {
				n++
			}
			number[c] = uint8(n - 1)
		case members[c] > 0:
			number[c] = uint8(n)
			n++
		}
	}
	return n
}
