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
		dst[i] = byte(e >> 8)
		x = x>>8*(e&0xff) + e>>16
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
		dst[l] = byte(e >> 8)
		x = x>>8*(e&0xff) + e>>16
		more := x<<8 | uint32(src[pos&(Lanes-1)])
		took := uint(0)
		if x < low {
			x = more
			took = 1
		}
		pos += took
		st[l] = uint16(x)
	}
	return int(pos)
}

// encodeGo encodes src, last symbol first, into the bytes before dst[end] and
// returns where they begin. At most one byte for each symbol is used, and one
// more below may be written, which dst has as slack. ok is false when a symbol
// has no slot.
func encodeGo(st *State, t *Table, dst []byte, end int, src []byte) (begin int, ok bool) {
	bad := uint32(0)
	for i := len(src) - 1; i >= 0; i-- {
		e := t.enc[src[i]]
		f := e & 0xff
		bad |= f - 1 // the upper half: f is 0
		x := uint32(st[i%Lanes])
		// Whatever comes out lies in [low, 2^16) exactly if x < f * 2^8 goes in,
		// and since low = 2^8 one byte less is always enough.
		dst[end-1] = byte(x)
		less := x >> 8
		took := 0
		if x >= f<<8 {
			x = less
			took = 1
		}
		end -= took
		q := x * (e >> 16) >> 16 // right or 1 too small
		r := x - q*f
		out := q<<8 + r + e>>8&0xff
		if r >= f {
			out += low - f
		}
		st[i%Lanes] = uint16(out)
	}
	return end, bad>>16 == 0
}
