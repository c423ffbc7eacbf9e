package rans

import "golang.org/x/sys/cpu"

func simdKernels() []Kernel {
	var ks []Kernel
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VBMI && cpu.X86.HasAVX512VBMI2 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT {
		ks = append(ks, AVX512)
	}
	return ks
}

func (c *Coder) encode(st *State, t *Table, dst []byte, end int, src []byte) (int, bool) {
	if c.kernel == AVX512 {
		return encodeWide(st, t, dst, end, src)
	}
	return encodeGo(st, t, dst, end, src)
}

func (c *Coder) decode(st *State, t *Table, dst, src []byte, pos int) (int, bool) {
	if c.kernel == AVX512 {
		return decodeWide(st, t, dst, src, pos)
	}
	return decodeGo(st, t, dst, src, pos)
}

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
