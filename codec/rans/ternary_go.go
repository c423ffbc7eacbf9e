package rans

// trouble is why a ternary kernel stops.
type trouble int

const (
	none trouble = iota
	endsEarly
	unknownContext
)

// decodeTernaryGo decodes len(dst) symbols, lanes 0 and up.
func decodeTernaryGo(st *State, t *TernaryTable, dst, ctx, src []byte, pos int) (int, trouble) {
	ctx = ctx[:len(dst)]
	for i := range dst {
		c := ctx[i]
		if int(c) >= t.contexts {
			return pos, unknownContext
		}
		c &= 63
		x := uint32(st[i%Lanes])
		slot := byte(x)
		rank, start := 0, byte(0)
		if slot >= t.bound1[c] {
			rank, start = 1, t.bound1[c]
		}
		if slot >= t.bound2[c] {
			rank, start = 2, t.bound2[c]
		}
		dst[i] = t.rankSym[rank][c]
		x = x>>8*(uint32(t.rankFreq[rank][c])+1) + uint32(slot-start)
		if x < low {
			if pos >= len(src) {
				return pos, endsEarly
			}
			x = x<<8 | uint32(src[pos])
			pos++
		}
		st[i%Lanes] = uint16(x)
	}
	return pos, none
}

// encodeTernaryGo encodes src, last symbol first, into the bytes before
// dst[end], as encodeGo does.
func encodeTernaryGo(st *State, t *TernaryTable, dst []byte, end int, ctx, src []byte) (begin int, ok bool) {
	ctx = ctx[:len(src)]
	for i := len(src) - 1; i >= 0; i-- {
		if int(ctx[i]) >= t.contexts || src[i] > 2 {
			return end, false
		}
		k := 3*int(ctx[i]) + int(src[i])
		f := uint32(t.freq[k])
		if f == 0 {
			return end, false
		}
		x := uint32(st[i%Lanes])
		dst[end-1] = byte(x)
		less := x >> 8
		took := 0
		if x >= f<<8 {
			x = less
			took = 1
		}
		end -= took
		st[i%Lanes] = uint16(x/f<<8 + x%f + uint32(t.symStart[k]))
	}
	return end, true
}
