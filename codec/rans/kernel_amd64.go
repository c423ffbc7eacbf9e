package rans

import "golang.org/x/sys/cpu"

func simdKernels() []Kernel {
	var ks []Kernel
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasBMI2 && x.HasPOPCNT
	if avx2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VBMI && x.HasAVX512VBMI2 {
		ks = append(ks, AVX512)
	}
	if avx2 {
		ks = append(ks, AVX2)
	}
	return ks
}

func (c *Coder) encode(st *State, t *Table, dst []byte, end int, src []byte) (int, bool) {
	if c.kernel == Go {
		return encodeGo(st, t, dst, end, src)
	}
	return c.encodeWide(st, t, dst, end, src)
}

func (c *Coder) decodeRuns(st *State, runs []Run, dst, body []byte) (int, bool) {
	if c.kernel == AVX512 {
		return decodeRunsAVX512(st, runs, dst, body)
	}
	return c.eachRun(st, runs, dst, body)
}

func (c *Coder) decode(st *State, t *Table, dst, src []byte, pos int) (int, bool) {
	if c.kernel == AVX2 {
		return decodeWide(st, t, dst, src, pos)
	}
	return decodeGo(st, t, dst, src, pos)
}

func (c *Coder) decodePair(a, b *Body, stA, stB *State) (posA, posB int, okA, okB bool) {
	if c.kernel == AVX512 {
		return decodePairWide(a, b, stA, stB)
	}
	return c.oneByOne(a, b, stA, stB)
}

// There is no AVX2 kernel for ternary bodies.

func (c *Coder) encodeTernary(st *State, t *TernaryTable, dst, ctx, src []byte) (int, bool) {
	if c.kernel == AVX512 {
		return encodeTernaryWide(st, t, dst, ctx, src)
	}
	return encodeTernaryGo(st, t, dst, len(dst), ctx, src)
}

func (c *Coder) decodeTernary(st *State, t *TernaryTable, dst, ctx, src []byte) (int, trouble) {
	if c.kernel == AVX512 {
		return decodeTernaryWide(st, t, dst, ctx, src)
	}
	return decodeTernaryGo(st, t, dst, ctx, src, 0)
}

func (c *Coder) decodeTernaryPair(a, b *TernaryBody, stA, stB *State) (posA, posB int, whyA, whyB trouble) {
	if c.kernel == AVX512 {
		return decodeTernaryPairWide(a, b, stA, stB)
	}
	return ternaryOneByOne(a, b, stA, stB)
}

func (c *Coder) encodePair(a, b *Source, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	if c.kernel == AVX512 {
		return c.encodePairWide(a, b, stA, stB, roomA, roomB)
	}
	return c.encodeOneByOne(a, b, stA, stB, roomA, roomB)
}

func (c *Coder) encodeTernaryPair(a, b *TernarySource, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	if c.kernel == AVX512 {
		return encodeTernaryPairWide(a, b, stA, stB, roomA, roomB)
	}
	return encodeTernaryOneByOne(a, b, stA, stB, roomA, roomB)
}
