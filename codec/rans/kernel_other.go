//go:build !amd64

package rans

func simdKernels() []Kernel { return nil }

func (c *Coder) encode(st *State, t *Table, dst []byte, end int, src []byte) (int, bool) {
	return encodeGo(st, t, dst, end, src)
}

func (c *Coder) decode(st *State, t *Table, dst, src []byte, pos int) (int, bool) {
	return decodeGo(st, t, dst, src, pos)
}

func (c *Coder) encodeTernary(st *State, t *TernaryTable, dst, ctx, src []byte) (int, bool) {
	return encodeTernaryGo(st, t, dst, len(dst), ctx, src)
}

func (c *Coder) decodeTernary(st *State, t *TernaryTable, dst, ctx, src []byte) (int, trouble) {
	return decodeTernaryGo(st, t, dst, ctx, src, 0)
}

func (c *Coder) decodeRuns(st *State, runs []Run, dst, body []byte) (int, bool) {
	return c.eachRun(st, runs, dst, body)
}

func (c *Coder) decodePair(a, b *Body, stA, stB *State) (posA, posB int, okA, okB bool) {
	return c.oneByOne(a, b, stA, stB)
}

func (c *Coder) decodeTernaryPair(a, b *TernaryBody, stA, stB *State) (posA, posB int, whyA, whyB trouble) {
	return ternaryOneByOne(a, b, stA, stB)
}

func (c *Coder) encodePair(a, b *Source, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	return c.encodeOneByOne(a, b, stA, stB, roomA, roomB)
}

func (c *Coder) encodeTernaryPair(a, b *TernarySource, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	return encodeTernaryOneByOne(a, b, stA, stB, roomA, roomB)
}
