package codec

import (
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// fieldStats is gathered over all units of a field.
type fieldStats struct {
	members [maxClasses]int
	plainOf [maxClasses]uint8 // variance class to class
	plain   int
	// fixed is the number of classes that a basis gives, 0 if there is none.
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

// choose numbers the classes that have members.
func (s *fieldStats) choose() {
	s.plain = compactClasses(&s.members, &s.plainOf)
	if s.fixed > 0 {
		s.plain = s.fixed
		for c := range s.plainOf {
			s.plainOf[c] = uint8(c)
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

// tables makes the tables of a field.
func (s *fieldStats) tables(passes int) fieldTables {
	var t fieldTables
	if s.plain > 0 {
		tables, low := buildTables(s.base[:s.plain], s.beyond[:s.plain], escapeAtPlain, valueZero)
		t.plain, t.zero = tables, uint8(valueZero-low+1)
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
		tables, low := buildTables(s.exponents[:s.lossless], none[:s.lossless], escapeAtExponent, 255)
		t.lossless, t.exponent = tables, uint8(low)
	}
	return t
}

// count adds the symbols of a unit to the histograms of its field.
func (e *Encoder) count(h *Header, raw []byte, index int) {
	u, d, w := h.unit(index), &e.units[index], &e.work
	s := &e.fields[u.field]
	switch d.base {
	case baseLossless:
		resize(&d.classOf, u.dims)
		for c, v := range d.average {
			d.classOf[c] = s.losslessOf[s.exponentClass(v)]
		}
		exps, rests := resize(&w.exps, u.dims), resize(&w.rests, u.dims)
		for t := range u.tokens {
			u.dtype.split(exps, rests, u.row(raw, t))
			for c, v := range exps {
				s.exponents[d.classOf[c]][v]++
			}
		}
	case basePlain:
		for c, v := range d.classOf {
			d.classOf[c] = s.plainOf[v]
		}
		// From the finest level up: the digits of the tokens that a pass has,
		// then the values that are left.
		w.q = append(w.q[:0], d.q...)
		for p := h.passes() - 1; p > 0; p-- {
			w.spans = activeSpans(h, w, p)
			w.split(u.dims, d.classOf)
			countDigits(&s.digits[p-1], w.contexts, w.digits)
		}
		w.countValues(s, u.tokens, d.classOf)
	}
}

// countDigits adds digits to the counts of their contexts. Neighbours are often
// equal, and an addition has to wait for the one before it to the same place:
// four tables take turns.
func countDigits(counts *[2 * maxClasses][3]uint32, contexts, digits []byte) {
	var h [4][256]uint32
	contexts = contexts[:len(digits)]
	for i, d := range digits {
		h[i%4][3*contexts[i]+d]++
	}
	for c := range counts {
		for d := range counts[c] {
			for k := range h {
				counts[c][d] += h[k][3*c+d]
			}
		}
	}
}

// countValues adds the values in w.q to the histograms of their classes.
func (w *workspace) countValues(s *fieldStats, tokens int, classOf []uint8) {
	lo, hi := resize(&w.lo, len(classOf)), resize(&w.hi, len(classOf))
	for ch := range classOf {
		lo[ch], hi[ch] = 1, 255
	}
	w.ops.Symbols(resize(&w.symbols, len(w.q)), w.q, valueZero, lo, hi)
	classes := &w.order.classes
	classes.Build(classOf, s.plain)
	body := resize(&w.body, classes.Size(tokens))
	w.ops.Gather(body, w.symbols, classes, tokens)
	for c := range s.plain {
		n := classes.Channels(c) * tokens
		w.ops.Count((*[256]uint32)(&s.base[c]), body[:n])
		s.beyond[c] += s.base[c][0]
		s.base[c][0] = 0
		body = body[(n+rows.Step-1)/rows.Step*rows.Step:]
	}
}

// valueZero is the index of value 0 in a histogram of values.
const valueZero = 128
