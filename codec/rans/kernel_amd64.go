package rans

func simdKernels() []Kernel { return nil }

func (c *Coder) encode(st *State, t *Table, dst []byte, end int, src []byte) (int, bool) {
	return encodeGo(st, t, dst, end, src)
}

func (c *Coder) decode(st *State, t *Table, dst, src []byte, pos int) (int, bool) {
	return decodeGo(st, t, dst, src, pos)
}
