package rans

// encodeWide encodes as encodeGo does, whole steps by the kernel.
func (c *Coder) encodeWide(st *State, t *Table, dst []byte, end int, src []byte) (int, bool) {
	whole := len(src) / Lanes
	end, ok := encodeGo(st, t, dst, end, src[whole*Lanes:])
	if !ok || whole == 0 {
		return end, ok
	}
	var size int
	var bad uint64
	switch {
	case c.kernel == AVX2:
		size, bad = encodeAVX2(st, &t.enc[0], &dst[0], end, &src[0], whole)
	case t.narrow:
		size, bad = encodeNarrowAVX512(st, t, &dst[0], end, &src[0], whole)
	default:
		size, bad = encodeAVX512(st, t, &dst[0], end, &src[0], whole)
	}
	return end - size, bad == 0
}

// decodeWide decodes as decodeGo does, whole steps by the AVX2 kernel.
func decodeWide(st *State, t *Table, dst, src []byte, pos int) (int, bool) {
	whole := len(dst) / Lanes
	left := whole
	if left > 0 && len(src)-pos >= Lanes {
		var took int
		left, took = decodeAVX2(st, &t.dec[0], &dst[0], left, &src[pos], len(src)-pos)
		pos += took
	}
	if left > 0 {
		// As in cursor.whole.
		var tail [2 * Lanes]byte
		rest := copy(tail[:Lanes], src[pos:])
		var took int
		left, took = decodeAVX2(st, &t.dec[0], &dst[(whole-left)*Lanes], left, &tail[0], rest+Lanes)
		if left > 0 || took > rest {
			return pos, false
		}
		pos += took
	}
	return decodeGo(st, t, dst[whole*Lanes:], src, pos)
}

func encodeTernaryWide(st *State, t *TernaryTable, dst []byte, ctx, src []byte) (int, bool) {
	whole := len(src) / Lanes
	end, ok := encodeTernaryGo(st, t, dst, len(dst), ctx[whole*Lanes:], src[whole*Lanes:])
	if !ok || whole == 0 {
		return end, ok
	}
	size, bad := encodeTernaryAVX512(st, t, &dst[0], end, &ctx[0], &src[0], whole)
	return end - size, bad == 0
}
