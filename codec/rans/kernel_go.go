package rans

// The reference kernels. The assembly does exactly this, 64 lanes at a time.

// decodeGo decodes len(dst) symbols, lanes 0 and up, and returns the position
// behind the bytes that they took. ok is false when src ends before.
func decodeGo(st *State, t *Table, dst, src []byte, pos int) (next int, ok bool) {
	for len(dst) >= Lanes && len(src)-pos >= Lanes {
		pos += stepGo(st, t, (*[Lanes]byte)(dst), (*[Lanes]byte)(src[pos:]))
		dst = dst[Lanes:]
	}
	for i := range dst {
		x := uint32(st[i%Lanes])
		e := t.dec[x&0xff]
		dst[i] = byte(e)
		x = x>>8*(e>>8&0xfff) + e>>20
		if x < low {
			if pos >= len(src) {
				return pos, false
			}
			x = x<<8 | uint32(src[pos])
			pos++
		}
		st[i%Lanes] = uint16(x)
	}
	return pos, true
}

// stepGo decodes one step and returns the number of bytes that it took from
// src, at most one for each lane. Free of branches that the data decides.
func stepGo(st *State, t *Table, dst, src *[Lanes]byte) int {
	pos := uint(0)
	for l := range Lanes {
		x := uint32(st[l])
		e := t.dec[x&0xff]
		dst[l] = byte(e)
		x = x>>8*(e>>8&0xfff) + e>>20
		full := x<<8 | uint32(src[pos&(Lanes-1)])
		took := uint(0)
		if x < low {
			x = full
			took = 1
		}
		pos += took
		st[l] = uint16(x)
	}
	return int(pos)
}

// encodeGo encodes src, last symbol first, into the bytes before dst[end] and
// returns where they begin. dst has room for one byte for each symbol. ok is
// false when a symbol has no slot.
func encodeGo(st *State, t *Table, dst []byte, end int, src []byte) (begin int, ok bool) {
	for i := len(src) - 1; i >= 0; i-- {
		e := t.enc[src[i]]
		f := uint32(e & 0xffff)
		if f == 0 {
			return end, false
		}
		x := uint32(st[i%Lanes])
		// Whatever comes out lies in [low, 2^16) exactly if x < f * 2^8 goes in,
		// and since low = 2^8 one byte less is always enough.
		if x >= f<<8 {
			end--
			dst[end] = byte(x)
			x >>= 8
		}
		// Exact: x < 2^8 f, and the reciprocal's error is below f / 2^24.
		q := uint32(uint64(x) * (e >> 24) >> 24)
		st[i%Lanes] = uint16(q<<8 + x - q*f + uint32(e>>16&0xff))
	}
	return end, true
}
