package codec

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// set writes one bf16 element of a unit.
func set(s *Shape, raw []byte, unit, token, channel int, v uint16) {
	u := s.unit(unit)
	binary.LittleEndian.PutUint16(u.row(raw, token)[2*channel:], v)
}

// A unit that cannot be quantized is kept exactly; its neighbours are not.
func TestUnitsThatCannotBeQuantized(t *testing.T) {
	const nan, inf, minusInf, negativeZero, tiny = 0x7fc1, 0x7f80, 0xff80, 0x8000, 0x0001
	s := kvShape(1, 3, 65, 24, BF16)
	base := kv(s, 1)
	one := func(v uint16) func([]byte) { return func(raw []byte) { set(s, raw, 2, 7, 3, v) } }
	all := func(v uint16) func([]byte) {
		return func(raw []byte) {
			for k := range s.Tokens {
				for c := range 24 {
					set(s, raw, 2, k, c, v)
				}
			}
		}
	}
	for name, f := range map[string]func([]byte){
		"NaN": one(nan), "infinity": one(inf), "minus infinity": one(minusInf),
		"all zero": all(0), "all minus zero": all(negativeZero), "all equal": all(0x3f80), "all NaN": all(nan), "all denormal": all(tiny),
		"constant channels": func(raw []byte) {
			for k := range s.Tokens {
				for c := range 24 {
					set(s, raw, 2, k, c, bf16(float32(c)))
				}
			}
		},
		"denormals": func(raw []byte) {
			for k := range s.Tokens {
				for c := range 24 {
					set(s, raw, 2, k, c, uint16(k+c))
				}
			}
		},
		"an outlier that the steps do not span": func(raw []byte) {
			all(0x3f80)(raw)
			set(s, raw, 2, 5, 5, 0x3f81)
			set(s, raw, 2, 6, 0, 0x7f00)
		},
		"the largest numbers": func(raw []byte) {
			all(0x7f7f)(raw)
			for k := range s.Tokens {
				set(s, raw, 2, k, k%24, 0xff7f)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := append([]byte(nil), base...)
			f(raw)
			p := params(s, Plain, 0, 3, .06)
			obj := encode(t, raw, s, p)
			h, err := Parse(obj)
			require.NoError(t, err)
			require.NotEqual(t, basePlain, h.modes[2])
			require.Equal(t, basePlain, h.modes[0])
			require.Equal(t, basePlain, h.modes[5])
			u := s.unit(2)
			for level := range 4 {
				got := decode(t, obj, s, level)
				for k := range s.Tokens {
					require.Equal(t, u.row(raw, k), u.row(got, k))
				}
			}
			require.Equal(t, raw, decode(t, encode(t, raw, s, params(s, Lossless, 0, 0, 1)), s, 0))
		})
	}
}

// One value far out has no symbol; it is escaped, and as near as any other.
func TestEscapes(t *testing.T) {
	s := kvShape(1, 1, 128, 32, BF16)
	raw := kv(s, 1)
	set(s, raw, 0, 9, 4, bf16(400))
	set(s, raw, 0, 127, 31, bf16(-390))
	obj := encode(t, raw, s, params(s, Plain, 0, 0, .06))
	h, err := Parse(obj)
	require.NoError(t, err)
	require.Equal(t, basePlain, h.modes[0])
	require.GreaterOrEqual(t, binary.LittleEndian.Uint32(obj[h.starts[0]+4:]), uint32(2))
	checkError(t, h, obj, raw, decode(t, obj, s, 0), 0, 0)
}

func TestRepeatedRowsCostOneRow(t *testing.T) {
	s := kvShape(4, 2, 256, 128, BF16)
	raw := make([]byte, s.RawSize())
	for i := range raw {
		raw[i] = byte(i % s.RowSize() * 7)
	}
	obj := encode(t, raw, s, params(s, Plain, 0, 3, .06))
	require.Less(t, len(obj), 16*(256+16)+4*16*12+512)
	require.Equal(t, raw, decode(t, obj, s, 3))
}

// Constant classes cost no stream: a coarse level of a narrow head.
func TestConstantClassesCostNothing(t *testing.T) {
	s := kvShape(1, 1, 256, 128, BF16)
	raw := kv(s, 1)
	wide := encode(t, raw, s, params(s, Plain, 3, 3, 1))
	h, err := Parse(wide)
	require.NoError(t, err)
	require.Less(t, int(h.ObjectSize-h.Size), 2*(8+128+64+16)+200, "almost all values are 0 at 27 times the rms")
}

func TestHalfPrecisionTypes(t *testing.T) {
	for _, d := range []DType{F16, F8E4M3, F8E5M2} {
		n := 1 << (8 * d.Size())
		row, back := make([]byte, d.Size()), make([]byte, d.Size())
		v := make([]float32, 1)
		for b := range n {
			row[0] = byte(b)
			if d.Size() == 2 {
				row[1] = byte(b >> 8)
			}
			d.load(v, row)
			x := float64(v[0])
			require.Equal(t, !math.IsNaN(x) && !math.IsInf(x, 0), d.finite(row), "%v %x", d, b)
			if !d.finite(row) {
				continue
			}
			d.store(back, v)
			require.Equal(t, row, back, "%v %x is %v", d, b, x)
		}
	}
	// Known values: rounding to even, subnormals, saturation.
	for _, c := range []struct {
		d    DType
		in   float32
		want uint32
	}{
		{F16, 1, 0x3c00}, {F16, 65519, 0x7bff}, {F16, 1e9, 0x7bff}, {F16, 6e-8, 1}, {F16, 2.9e-8, 0}, {F16, -6.1035156e-05, 0x8400}, {F16, 1.00048828125, 0x3c00}, {F16, 1.00146484375, 0x3c02},
		{F8E4M3, 448, 0x7e}, {F8E4M3, 1e9, 0x7e}, {F8E4M3, -1e9, 0xfe}, {F8E4M3, 1.0625, 0x38}, {F8E4M3, 1.1875, 0x3a}, {F8E4M3, 0.001953125, 1}, {F8E4M3, 0.0009765625, 0},
		{F8E5M2, 57344, 0x7b}, {F8E5M2, 1e9, 0x7b}, {F8E5M2, 1.125, 0x3c}, {F8E5M2, 1.375, 0x3e},
		{BF16, 1.00390625, 0x3f80}, {BF16, 1.01171875, 0x3f82}, {BF16, math.MaxFloat32, 0x7f7f},
	} {
		b := make([]byte, 4)
		c.d.store(b, []float32{c.in})
		require.Equal(t, c.want, binary.LittleEndian.Uint32(b), "%v of %v", c.d, c.in)
	}
}
