package codec

import (
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// fieldStats is gathered over all units of a field.
type fieldStats struct {
	// Counted by variance class: channels, values at the coarsest level, digits.
	members     [maxClasses]int
	early       [maxClasses]histogram
	earlyDigits [L3][2 * maxClasses][3]uint32

	// By class; beyond are values that have no place in a histogram.
	plainOf [maxClasses]uint8 // variance class to class
	plain   int
	// fixed is the number of classes that a basis gives, which are then counted
	// instead of variance classes; 0 if there is none.
	fixed  int
	base   [maxClasses]histogram
	beyond [maxClasses]uint32
	digits [L3][2 * maxClasses][3]uint32

	averages   [512]uint32 // channels with this average exponent, in halves
	topAverage int
	losslessOf [maxClasses]uint8
	lossless   int
	exponents  [maxClasses]histogram
}

func (s *fieldStats) observe(average []uint16) {
	for _, v := range average {
		s.averages[v]++
	}
}

// exponentClass sorts channels by half octaves below the largest.
func (s *fieldStats) exponentClass(average uint16) uint8 {
	return uint8(max(maxClasses-1-(s.topAverage-int(average)), 0))
}

// choose numbers the classes that have members, and gives them their counts.
func (s *fieldStats) choose(passes int) {
	s.plain = compactClasses(&s.members, &s.plainOf)
	if s.fixed > 0 {
		s.plain = s.fixed
		for c := range s.plainOf {
			s.plainOf[c] = uint8(c)
		}
	}
	if s.plain > 0 {
		for v, c := range s.plainOf {
			s.beyond[c] += s.early[v][0]
			for i, n := range s.early[v][1:] {
				s.base[c][i+1] += n
			}
			for p := range passes - 1 {
				for z := range 2 {
					for i, n := range s.earlyDigits[p][2*v+z] {
						s.digits[p][2*int(c)+z][i] += n
					}
				}
			}
		}
	}
	var members [maxClasses]int
	for v := len(s.averages) - 1; v >= 0; v-- {
		if s.averages[v] > 0 {
			s.topAverage = max(s.topAverage, v)
			members[s.exponentClass(uint16(v))] += int(s.averages[v])
		}
	}
	s.lossless = compactClasses(&members, &s.losslessOf)
}

// tables makes the tables of a field, in t's memory.
func (s *fieldStats) tables(t *fieldTables, passes int) {
	*t = fieldTables{plain: t.plain[:0], digits: t.digits[:0], coded: t.coded[:0], lossless: t.lossless[:0]}
	if s.plain > 0 {
		low := buildTables(&t.plain, s.base[:s.plain], s.beyond[:s.plain], escapeAtPlain, valueZero)
		t.zero = uint8(valueZero - low + 1)
		for p := range passes - 1 {
			digits := make([]rans.Ternary, 2*s.plain)
			for c := range digits {
				digits[c] = digitTable(&s.digits[p][c])
			}
			if err := t.addDigits(digits); err != nil {
				panic(err) // digitTable gives what Build takes
			}
		}
	}
	if s.lossless > 0 {
		var none [maxClasses]uint32
		// Exponents span at most 63 symbols below the largest that is not that of
		// infinities, so that tables stay small; others escape.
		top := 0
		for c := range s.lossless {
			for v := range 255 {
				if s.exponents[c][v] > 0 {
					top = max(top, v)
				}
			}
		}
		for c := range s.lossless {
			for v := range s.exponents[c] {
				if v > top || v <= top-63 {
					none[c] += s.exponents[c][v]
					s.exponents[c][v] = 0
				}
			}
		}
		t.exponent = uint8(buildTables(&t.lossless, s.exponents[:s.lossless], none[:s.lossless], escapeAtExponent, 255))
	}
}

// countDigits adds w.digits to the counts of their contexts. w.contexts means
// nothing afterwards.
func (w *workspace) countDigits(counts *[2 * maxClasses][3]uint32) {
	var hist [256]uint32
	w.ops.Pairs(w.contexts, w.digits)
	w.ops.Count(&hist, w.contexts)
	for c := range counts {
		for d := range counts[c] {
			counts[c][d] += hist[3*c+d]
		}
	}
}

// valueZero is the index of value 0 in a histogram of values.
const valueZero = 128

// wholeSteps is n, filled up to whole steps.
func wholeSteps(n int) int { return (n + rows.Step - 1) / rows.Step * rows.Step }
