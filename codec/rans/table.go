package rans

import (
	"bytes"

	"github.com/larderkv/larder/api/fault"
)

// Table is one class's code: how the 256 slots are shared out, in the forms
// that the kernels look up. It holds no pointers and may be built again in
// place when no run refers to it any more. The zero Table is not usable.
//
// The assembly reads the arrays by their names: sizes and layouts are its too.
type Table struct {
	// By slot: the symbol that owns it, the owner's frequency modulo 256 (only a
	// table with one symbol has 256), and the slot's index among the owner's.
	slotSym, slotFreq, slotBias [Slots]byte
	// By symbol: frequency modulo 256, first slot, and floor(65535 / frequency)
	// as two byte planes. Zero where the symbol has no slot.
	symFreq, symStart, symRcpLo, symRcpHi [Slots]byte
	// The same by narrow index: of the symbol s, what s is above before, or 0. Only
	// if narrow: then this tells the symbols with a slot apart, since all but
	// symbol 0, the codec's escape, lie within 63.
	narrowFreq, narrowStart, narrowRcpLo, narrowRcpHi [narrowSymbols]byte
	before                                            int
	before4                                           uint32 // before in each byte
	narrow                                            bool
	// A narrow index beyond most is most: so in a recoded table. Symbols from 1 to none
	// have no slot.
	most, none uint8

	// recoded: "symbol" is what Recode calls a byte, and t encodes only. escapes: all
	// bytes are the symbol 0.
	recoded, escapes bool

	// The same for kernels that look up a lane at a time: by slot
	// freq | symbol << 8 | bias << 16, and by symbol
	// freq | start << 8 | rcp << 16, which is 0 where the symbol has no slot.
	dec, enc [Slots]uint32

	symbols int // with a slot; 0: not built
	last    int // greatest symbol with a slot
}

// Build makes t the code of the frequencies. It answers invalid, and leaves t
// as it was, unless they sum to Slots.
//
// Slots are given out by descending frequency and then by ascending symbol.
// With lanes of 16 bits the order matters a little: this one saves a tenth of
// a percent over the symbols' own.
func (t *Table) Build(freq *[Slots]uint16) error {
	sum := 0
	for _, f := range freq {
		sum += int(f)
	}
	if sum != Slots {
		return fault.New(fault.Invalid, "rans.table", "frequencies do not sum to the slots").With(sum, Slots)
	}
	*t = Table{}
	var start [Slots + 1]int // of each frequency, then of its next symbol
	for _, f := range freq {
		start[f] += int(f)
	}
	for f, next := Slots, 0; f >= 0; f-- {
		start[f], next = next, next+start[f]
	}
	for s, f16 := range freq {
		if f16 == 0 {
			continue
		}
		f := int(f16)
		first := start[f]
		start[f] += f
		t.add(s, f, first)
	}
	t.setNarrow()
	return nil
}

// narrowSymbols is the number of symbols of one register's look-up.
const narrowSymbols = 64

func (t *Table) setNarrow() {
	least := 1
	for least < t.last && t.enc[least] == 0 {
		least++
	}
	t.before = least - 1
	t.before4 = uint32(t.before) * 0x01010101
	t.most, t.none = Slots-1, uint8(t.before)
	if t.narrow = t.last-t.before < narrowSymbols; !t.narrow {
		return
	}
	for _, p := range []struct {
		narrow *[narrowSymbols]byte
		all    *[Slots]byte
	}{{&t.narrowFreq, &t.symFreq}, {&t.narrowStart, &t.symStart}, {&t.narrowRcpLo, &t.symRcpLo}, {&t.narrowRcpHi, &t.symRcpHi}} {
		copy(p.narrow[:], p.all[t.before:])
		p.narrow[0] = p.all[0]
	}
}

func (t *Table) add(s, f, first int) {
	t.symbols++
	t.last = s
	t.symFreq[s] = byte(f)
	t.symStart[s] = byte(first)
	rcp := 65535 / f
	t.symRcpLo[s], t.symRcpHi[s] = byte(rcp), byte(rcp>>8)
	t.enc[s] = uint32(f&0xff) | uint32(first)<<8 | uint32(rcp)<<16
	dec := t.dec[first : first+f]
	syms, freqs, biases := t.slotSym[first:][:len(dec)], t.slotFreq[first:][:len(dec)], t.slotBias[first:][:len(dec)]
	entry := uint32(f&0xff) | uint32(s)<<8
	for b := range dec {
		syms[b], freqs[b], biases[b] = byte(s), byte(f), byte(b)
		dec[b] = entry | uint32(b)<<16
	}
}

// Freq returns the frequency of the symbol: 0 when the table cannot code it.
func (t *Table) Freq(symbol byte) int {
	e := t.enc[symbol]
	if e != 0 && e&0xff == 0 {
		return Slots
	}
	return int(e & 0xff)
}

// single returns the table's only symbol: coding it takes no bytes and leaves
// the lanes as they are.
func (t *Table) single() (byte, bool) { return byte(t.last), t.symbols == 1 }

// encodesAlone says whether the table has a single symbol, and then whether src has
// no other.
func (t *Table) encodesAlone(src []byte) (single, ok bool) {
	only, single := t.single()
	if !single {
		return false, true
	}
	return true, t.escapes || bytes.Count(src, []byte{only}) == len(src)
}
