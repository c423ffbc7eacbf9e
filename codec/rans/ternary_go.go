package rans

// trouble is why a ternary kernel stops.
type trouble int

const (
	none trouble = iota
	endsEarly
	unknownContext
)

// decodeTernaryGo decodes len(dst) symbols, lanes 0 and up. It finds an unknown
// context wherever it is, and then has decoded nothing.
func decodeTernaryGo(st *State, t *TernaryTable, dst, ctx, src []byte, pos int) (int, trouble) {
	ctx = ctx[:len(dst)]
	for _, c := range ctx {
		if int(c) >= t.contexts {
			return pos, unknownContext
		}
	}
	for i := range dst {
		c := ctx[i] & 63
		x := uint32(st[i%Lanes])
		slot := x & 0xff
		bound1, bound2 := uint32(t.bound1[c]), uint32(t.bound2[c])
		// Free of branches that the data decides: they would be wrong half of the
		// time. A difference's sign says which side of the bound the slot is on.
		rank := 2 + int(int32(slot-bound1)>>31) + int(int32(slot-bound2)>>31)
		start := bound1&^uint32(int32(slot-bound1)>>31) + (bound2-bound1)&^uint32(int32(slot-bound2)>>31)
		dst[i] = t.rankSym[rank][c]
		x = x>>8*(uint32(t.rankFreq[rank][c])+1) + slot - start
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

func ternaryOneByOne(a, b *TernaryBody, stA, stB *State) (posA, posB int, whyA, whyB trouble) {
	posA, whyA = decodeTernaryGo(stA, a.Table, a.Dst, a.Contexts, a.Body, 0)
	posB, whyB = decodeTernaryGo(stB, b.Table, b.Dst, b.Contexts, b.Body, 0)
	return posA, posB, whyA, whyB
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
