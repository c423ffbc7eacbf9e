package codec

import (
	"github.com/larderkv/larder/codec/rans"
)

// digitTable makes the frequencies of one context of a refinement digit. The
// outer two are stored as bytes: where one of them has all slots the middle
// symbol takes one.
func digitTable(count *[3]uint32) (t rans.Ternary) {
	rans.NormalizeTernary(&t, count)
	for _, outer := range []int{0, 2} {
		if t[outer] == rans.Slots {
			t[outer], t[1] = rans.Slots-1, 1
		}
	}
	return t
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
