package codec

import (
	"github.com/larderkv/larder/codec/rans"
)

// ternary is the table of a refinement digit: frequencies of the symbols 0, 1
// and 2 that sum to 256. A symbol without a slot does not occur.
type ternary [3]uint16

// normalizeDigits makes a table from counts: integer arithmetic only, every
// symbol that occurs has a slot. The outer frequencies are stored as bytes, so
// the middle one always has a slot unless an outer one needs all others.
func normalizeDigits(count [3]uint32) ternary {
	total := uint64(count[0]) + uint64(count[1]) + uint64(count[2])
	if total == 0 {
		return ternary{0, rans.Slots, 0}
	}
	share := func(n uint32) uint16 {
		if n == 0 {
			return 0
		}
		return uint16(max(1, (uint64(n)*rans.Slots+total/2)/total))
	}
	low, high := share(count[0]), share(count[2])
	room := uint16(rans.Slots - 1) // one slot for the middle, always
	for low+high > room {
		if low >= high {
			low--
		} else {
			high--
		}
	}
	return ternary{low, rans.Slots - low - high, high}
}

// encodeDigits codes src, symbols 0..2, each with the table that ctx names, as
// rans.Coder does runs: same lanes, same state, same bytes. It appends the body
// to dst. Every symbol must have a slot.
func encodeDigits(dst []byte, st *rans.State, tables []ternary, ctx, src []byte) []byte {
	at := len(dst)
	for i := len(src) - 1; i >= 0; i-- {
		t, s := &tables[ctx[i]], src[i]
		f, start := uint32(t[s]), uint32(0)
		for k := range s {
			start += uint32(t[k])
		}
		x := uint32(st[i%rans.Lanes])
		if x >= f<<8 {
			dst = append(dst, byte(x))
			x >>= 8
		}
		st[i%rans.Lanes] = uint16(x/f<<8 + x%f + start)
	}
	body := dst[at:]
	for i, j := 0, len(body)-1; i < j; i, j = i+1, j-1 {
		body[i], body[j] = body[j], body[i]
	}
	return dst
}

// decodeDigits is the reverse; body must end with the last symbol.
func decodeDigits(dst []byte, st *rans.State, tables []ternary, ctx, body []byte) error {
	at := 0
	for i := range dst {
		t := &tables[ctx[i]]
		x := uint32(st[i%rans.Lanes])
		slot := x & (rans.Slots - 1)
		s, f, start := byte(0), uint32(t[0]), uint32(0)
		if slot >= f {
			s, start, f = 1, f, uint32(t[1])
			if slot >= start+f {
				s, start, f = 2, start+f, uint32(t[2])
			}
		}
		dst[i] = s
		x = x>>8*f + slot - start
		if x < rans.Slots {
			if at == len(body) {
				return corrupt("digits", "end early").With(len(body), nil)
			}
			x = x<<8 | uint32(body[at])
			at++
		}
		st[i%rans.Lanes] = uint16(x)
	}
	if at != len(body) {
		return corrupt("digits", "go on behind the last one").With(len(body), at)
	}
	return nil
}

// Raw digits are packed five to a byte in groups of 320: byte i of a group of w
// bytes holds the digits i, i+w, i+2w, i+3w and i+4w, the first as the units.
// The last group has as many bytes as its digits need.
const (
	digitGroup = 64
	digitsByte = 5
)

func rawDigitsSize(n int) int {
	full := n / (digitGroup * digitsByte)
	return full*digitGroup + (n%(digitGroup*digitsByte)+digitsByte-1)/digitsByte
}

func appendRawDigits(dst, src []byte) []byte {
	for len(src) > 0 {
		n := min(len(src), digitGroup*digitsByte)
		w := (n + digitsByte - 1) / digitsByte
		for i := range w {
			b := 0
			for k := digitsByte - 1; k >= 0; k-- {
				b *= 3
				if at := i + k*w; at < n {
					b += int(src[at])
				}
			}
			dst = append(dst, byte(b))
		}
		src = src[n:]
	}
	return dst
}

// readRawDigits is the reverse; len(body) is rawDigitsSize(len(dst)).
func readRawDigits(dst, body []byte) error {
	for len(dst) > 0 {
		n := min(len(dst), digitGroup*digitsByte)
		w := (n + digitsByte - 1) / digitsByte
		for i, b := range body[:w] {
			if b >= 243 {
				return corrupt("digits", "not five digits").With(b, 242)
			}
			for k := range digitsByte {
				at := i + k*w
				if at < n {
					dst[at] = b % 3
				} else if b%3 != 0 {
					return corrupt("digits", "padding is not zero")
				}
				b /= 3
			}
		}
		dst, body = dst[n:], body[w:]
	}
	return nil
}
