package rans

import "github.com/larderkv/larder/api/fault"

// AppendTo appends the table's code to dst: the first symbol, the number of
// symbols from it to the last one less 1, and their frequencies, one byte
// each; none when there is only one symbol.
func (t *Table) AppendTo(dst []byte) []byte {
	first := 0
	for first < t.last && t.enc[first] == 0 {
		first++
	}
	dst = append(dst, byte(first), byte(t.last-first))
	if t.symbols == 1 {
		return dst
	}
	return append(dst, t.symFreq[first:t.last+1]...)
}

// Read builds t from the beginning of src and returns the number of bytes that
// the code takes. It answers corrupt, and leaves t as it was, for anything
// that AppendTo does not write: a table has exactly one code.
func (t *Table) Read(src []byte) (int, error) {
	if len(src) < 2 {
		return 0, fault.New(fault.Corrupt, "rans.table", "too short").With(len(src), 2)
	}
	first, n := int(src[0]), int(src[1])+1
	if first+n > Slots {
		return 0, fault.New(fault.Corrupt, "rans.table", "symbols beyond the last").With(first+n, Slots)
	}
	var freq [Slots]uint16
	if n == 1 {
		freq[first] = Slots
		return 2, t.Build(&freq)
	}
	code := src[2:]
	if len(code) < n {
		return 0, fault.New(fault.Corrupt, "rans.table", "too short").With(len(src), 2+n)
	}
	if code[0] == 0 || code[n-1] == 0 {
		return 0, fault.New(fault.Corrupt, "rans.table", "first or last symbol without a slot")
	}
	sum := 0
	for i, f := range code[:n] {
		freq[first+i] = uint16(f)
		sum += int(f)
	}
	if sum != Slots {
		return 0, fault.New(fault.Corrupt, "rans.table", "frequencies do not sum to the slots").With(sum, Slots)
	}
	return 2 + n, t.Build(&freq)
}
