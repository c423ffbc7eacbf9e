package rans

import (
	"github.com/larderkv/larder/api/fault"
)

// MaxContexts of a TernaryTable: three symbols each fit one register's look-up.
const MaxContexts = 21

// Ternary are the frequencies of the symbols 0, 1 and 2 in one context. They
// sum to Slots; a symbol with 0 cannot occur.
type Ternary [3]uint16

// NormalizeTernary sets freq from counts by Normalize's rule. Counts that are
// all 0 give symbol 1 everything.
func NormalizeTernary(freq *Ternary, counts *[3]uint32) {
	var hist [Slots]uint32
	var all [Slots]uint16
	copy(hist[:], counts[:])
	if Normalize(&all, &hist) == 0 {
		all[1] = Slots
	}
	copy(freq[:], all[:])
}

// TernaryTable is the code of symbols 0 to 2 where each symbol has a context
// that both sides know: refinement digits, which depend on the coarse ones. It
// needs no look-up by slot, so that contexts may change from symbol to symbol.
// It holds no pointers; the zero value is not usable.
//
// Within a context, slots are given out by ascending frequency and then by
// ascending symbol. The greatest comes last, so the two bounds stay below 256
// even where one symbol has all slots.
//
// The assembly reads the byte arrays by name: their sizes and planes are its
// too.
type TernaryTable struct {
	// By context: the first slots of the second and third rank.
	bound1, bound2 [64]byte
	// By rank and context: frequency - 1, and the symbol.
	rankFreq, rankSym [3][64]byte
	// By 3 context + symbol: frequency - 1, first slot, floor(65535 / frequency)
	// as two byte planes. All zero where the symbol has no slot.
	symFreq, symStart, symRcpLo, symRcpHi [64]byte
	// contexts built; 0: not built.
	contexts int
	// freq by 3 context + symbol.
	freq [64]uint16
}

// Build makes t the code of the contexts 0 to len(tabs) - 1. It answers invalid,
// and leaves t as it was, when there are none or too many, or one does not sum
// to Slots.
func (t *TernaryTable) Build(tabs []Ternary) error {
	if len(tabs) < 1 || len(tabs) > MaxContexts {
		return fault.New(fault.Invalid, "rans.ternary", "number of contexts").With(len(tabs), MaxContexts)
	}
	for i, f := range tabs {
		if sum := int(f[0]) + int(f[1]) + int(f[2]); sum != Slots {
			return fault.New(fault.Invalid, "rans.ternary", "frequencies of context %d do not sum to the slots", i).With(sum, Slots)
		}
	}
	*t = TernaryTable{contexts: len(tabs)}
	for c := range tabs {
		t.build(c, &tabs[c])
	}
	return nil
}

func (t *TernaryTable) build(c int, freq *Ternary) {
	rank := [3]byte{0, 1, 2}
	for _, p := range [3][2]int{{0, 1}, {1, 2}, {0, 1}} {
		if a, b := &rank[p[0]], &rank[p[1]]; freq[*a] > freq[*b] {
			*a, *b = *b, *a
		}
	}
	start := 0
	for r, s := range rank {
		f := int(freq[s])
		switch r {
		case 1:
			t.bound1[c] = byte(start)
		case 2:
			t.bound2[c] = byte(start)
		}
		t.rankSym[r][c] = s
		t.rankFreq[r][c] = byte(f - 1)
		if f > 0 {
			i := 3*c + int(s)
			rcp := 65535 / f
			t.freq[i] = uint16(f)
			t.symFreq[i], t.symStart[i] = byte(f-1), byte(start)
			t.symRcpLo[i], t.symRcpHi[i] = byte(rcp), byte(rcp>>8)
		}
		start += f
	}
}
