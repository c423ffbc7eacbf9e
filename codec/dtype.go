package codec

import (
	"encoding/binary"
	"math"
	"strconv"
)

// DType is the type of a field's elements.
type DType uint8

// The types; the values are those of FORMAT.md.
const (
	F32    DType = 1
	BF16   DType = 2
	F16    DType = 3
	F8E4M3 DType = 4 // the "fn" kind: no infinities, NaN is 0x7f and 0xff
	F8E5M2 DType = 5
	U8     DType = 6 // bytes of an opaque field
)

var dtypes = [...]struct {
	name string
	// size in bytes; bits of exponent and mantissa.
	size, exp, man int
}{{}, {"fp32", 4, 8, 23}, {"bf16", 2, 8, 7}, {"fp16", 2, 5, 10}, {"fp8_e4m3", 1, 4, 3}, {"fp8_e5m2", 1, 5, 2}, {"u8", 1, 0, 0}}

// ParseDType is the reverse of String.
func ParseDType(name string) (DType, error) {
	for i, d := range dtypes {
		if i > 0 && d.name == name {
			return DType(i), nil
		}
	}
	return 0, invalid("dtype", "unknown data type").With(name, "fp32, bf16, fp16, fp8_e4m3, fp8_e5m2, u8")
}

// Size is the bytes of an element; 0 for an unknown type.
func (d DType) Size() int {
	if int(d) < len(dtypes) {
		return dtypes[d].size
	}
	return 0
}

func (d DType) String() string {
	if d.Size() > 0 {
		return dtypes[d].name
	}
	return "dtype(" + strconv.Itoa(int(d)) + ")"
}

// load converts a row to float32. Every value of every type is a float32.
func (d DType) load(dst []float32, row []byte) {
	switch d {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(row[4*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(row[2*i:])) << 16)
		}
	case F16:
		for i := range dst {
			dst[i] = widen(uint32(binary.LittleEndian.Uint16(row[2*i:])), 5, 10)
		}
	case F8E4M3:
		for i := range dst {
			dst[i] = widenE4M3(row[i])
		}
	case F8E5M2:
		for i := range dst {
			dst[i] = widen(uint32(row[i]), 5, 2)
		}
	}
}

// store converts finite values to the type: round to nearest, ties to even;
// what is beyond the largest finite value becomes that value.
func (d DType) store(row []byte, src []float32) {
	switch d {
	case F32:
		for i, v := range src {
			binary.LittleEndian.PutUint32(row[4*i:], math.Float32bits(v))
		}
	case BF16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(row[2*i:], bf16(v))
		}
	case F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(row[2*i:], uint16(narrow(v, 5, 10, 0x7bff)))
		}
	case F8E4M3:
		for i, v := range src {
			row[i] = byte(narrow(v, 4, 3, 0x7e))
		}
	case F8E5M2:
		for i, v := range src {
			row[i] = byte(narrow(v, 5, 2, 0x7b))
		}
	}
}

// bf16 rounds a finite value; the largest ones round to the largest finite.
func bf16(v float32) uint16 {
	b := math.Float32bits(v)
	b = (b + 0x7fff + b>>16&1) >> 16
	if b&0x7f80 == 0x7f80 {
		b--
	}
	return uint16(b)
}

func fromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// widen converts an IEEE-like number of exp and man bits, infinities and NaN
// included.
func widen(b uint32, exp, man int) float32 {
	sign := b >> (exp + man) << 31
	e, m := int(b>>man)&(1<<exp-1), b&(1<<man-1)
	switch bias := 1<<(exp-1) - 1; e {
	case 1<<exp - 1:
		return math.Float32frombits(sign | 0x7f800000 | m<<(23-man))
	case 0:
		v := float32(m) * math.Float32frombits(uint32(127+1-bias-man)<<23)
		return math.Float32frombits(sign | math.Float32bits(v))
	default:
		return math.Float32frombits(sign | uint32(e-bias+127)<<23 | m<<(23-man))
	}
}

func widenE4M3(b byte) float32 {
	if b&0x7f == 0x7f {
		return math.Float32frombits(uint32(b>>7)<<31 | 0x7fc00000)
	}
	if b&0x78 == 0x78 { // the exponent that others give to infinities
		v := float32(8+b&7) * 32
		return math.Float32frombits(uint32(b>>7)<<31 | math.Float32bits(v))
	}
	return widen(uint32(b), 4, 3)
}

// narrow rounds v to exp and man bits, at most limit in magnitude.
func narrow(v float32, exp, man int, limit uint32) uint32 {
	b := math.Float32bits(v)
	sign := b >> 31 << (exp + man)
	b &= 0x7fffffff
	bias := 1<<(exp-1) - 1
	var out uint32
	if e := int(b>>23) - 127 + bias; e >= 1 {
		shift := 23 - man
		r := b + 1<<(shift-1) - 1 + b>>shift&1
		out = r>>shift - uint32(127-bias)<<man
	} else {
		// Subnormal there: a multiple of 2^(1-bias-man). The scaled value is
		// exact, and below 2^man + 1; adding 2^23 rounds it to an integer.
		scaled := math.Float32frombits(b) * math.Float32frombits(uint32(127+man+bias-1)<<23)
		sum := float32(scaled + 1<<23)
		out = math.Float32bits(sum) & 0x7fffff
	}
	return sign | min(out, limit)
}

// finite says whether no element of a row is NaN or infinite.
func (d DType) finite(row []byte) bool {
	switch d {
	case F32:
		for i := 3; i < len(row); i += 4 {
			if row[i]&0x7f == 0x7f && row[i-1] >= 0x80 {
				return false
			}
		}
	case BF16:
		for i := 1; i < len(row); i += 2 {
			if row[i]&0x7f == 0x7f && row[i-1] >= 0x80 {
				return false
			}
		}
	case F16:
		for i := 1; i < len(row); i += 2 {
			if row[i]&0x7c == 0x7c {
				return false
			}
		}
	case F8E4M3:
		for _, b := range row {
			if b&0x7f == 0x7f {
				return false
			}
		}
	case F8E5M2:
		for _, b := range row {
			if b&0x7c == 0x7c {
				return false
			}
		}
	}
	return true
}
