package rans

// Recode makes t encode bytes that are not symbols yet, with the code of from: the
// byte b is the symbol b - first + 1, where that is 1..255 and has a slot, else symbol
// 0, the codec's escape. Bodies are those of the symbols, which so nobody has to make.
// from has been built, and is another Table; t decodes nothing.
func (t *Table) Recode(from *Table, first int) {
	*t = Table{recoded: true, symbols: from.symbols, escapes: from.symbols == 1 && from.last == 0}
	least := Slots
	for b := range Slots {
		s := b - first + 1
		if s < 1 || s >= Slots || from.symRcpLo[s]|from.symRcpHi[s] == 0 {
			s = 0
		} else {
			least, t.last = min(least, b), b
		}
		t.symFreq[b], t.symStart[b], t.symRcpLo[b], t.symRcpHi[b] = from.symFreq[s], from.symStart[s], from.symRcpLo[s], from.symRcpHi[s]
		t.enc[b] = from.enc[s]
	}
	// Index 0 is what all bytes up to before have, the last one what all from there on
	// have: they must be escapes.
	t.before, t.most = least-1, narrowSymbols-1
	if t.narrow = least > 0 && t.last-t.before < narrowSymbols-1; !t.narrow {
		return
	}
	for i := range narrowSymbols {
		if b := t.before + i; i > 0 && b < Slots {
			t.narrowFreq[i], t.narrowStart[i], t.narrowRcpLo[i], t.narrowRcpHi[i] = t.symFreq[b], t.symStart[b], t.symRcpLo[b], t.symRcpHi[b]
		} else {
			t.narrowFreq[i], t.narrowStart[i], t.narrowRcpLo[i], t.narrowRcpHi[i] = from.symFreq[0], from.symStart[0], from.symRcpLo[0], from.symRcpHi[0]
		}
	}
}
