package rows_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/codec/rows"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// all are the reference and what this CPU runs, without and with what not every
// CPU has.
func all() [4]*rows.Ops {
	return [4]*rows.Ops{rows.New(rows.Options{Go: true}), rows.New(rows.Options{AVX2: true}), rows.WithoutBF16(), rows.New(rows.Options{})}
}

// shape draws dims and tokens: whole groups and others.
func shape(t *rapid.T) (dims, tokens int) {
	dims = rapid.SampledFrom([]int{1, 5, 32, 48, 63, 64, 65, 96, 128, 192, 256, 320}).Draw(t, "dims")
	return dims, rapid.OneOf(rapid.IntRange(1, 140), rapid.SampledFrom([]int{64, 128, 256})).Draw(t, "tokens")
}

func source(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
}

// within returns n bytes of a larger buffer, and a check that the rest of it
// stays as it was.
func within(t *rapid.T, n int) (b []byte, check func()) {
	whole := bytes.Repeat([]byte{0xa5}, n+256)
	return whole[128 : 128+n : 128+n], func() {
		t.Helper()
		require.Equal(t, bytes.Repeat([]byte{0xa5}, 128), whole[:128])
		require.Equal(t, bytes.Repeat([]byte{0xa5}, 128), whole[128+n:])
	}
}

func TestScatterGather(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng, classes := source(t), rapid.IntRange(1, rows.MaxClasses).Draw(t, "classes")
		classOf := make([]uint8, dims)
		for i := range classOf {
			classOf[i] = uint8(rng.IntN(classes))
		}
		var m rows.ClassMap
		m.Build(classOf, classes)
		symbols := make([]byte, dims*tokens)
		for i := range symbols {
			symbols[i] = byte(rng.Uint32())
		}
		// The order by its definition.
		var want []byte
		for c := range classes {
			for ch := range dims {
				for t := 0; t < tokens && int(classOf[ch]) == c; t++ {
					want = append(want, symbols[t*dims+ch])
				}
			}
			for len(want)%rows.Step != 0 {
				want = append(want, 0xee)
			}
		}
		require.Equal(t, len(want), m.Size(tokens))
		for _, o := range all() {
			got, check := within(t, len(want))
			for i := range got {
				got[i] = 0xee
			}
			o.Gather(got, symbols, &m, tokens)
			require.True(t, bytes.Equal(want, got), "gather, %s", o.Name())
			check()
			back, check := within(t, len(symbols))
			o.Scatter(back, want[:len(want):len(want)], &m, tokens)
			require.True(t, bytes.Equal(symbols, back), "scatter, %s", o.Name())
			check()
			first := rng.IntN(tokens)
			part, check := within(t, (rng.IntN(tokens-first)+1)*dims)
			o.ScatterTokens(part, want, &m, tokens, first, len(part)/dims)
			require.True(t, bytes.Equal(symbols[first*dims:][:len(part)], part), "some tokens, %s", o.Name())
			check()
		}
	})
}

func values(rng *rand.Rand, n int) []int16 {
	q := make([]int16, n)
	for i := range q {
		switch rng.IntN(4) {
		case 0:
			q[i] = int16(rng.IntN(65535) - 32767)
		case 1:
			q[i] = 0
		default:
			q[i] = int16(rng.IntN(41) - 20)
		}
	}
	return q
}

func TestSymbolsValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		q := values(rng, dims*tokens)
		zero := rapid.SampledFrom([]int{0, 1, 32, 128, 255}).Draw(t, "zero")
		escapes, want := 0, make([]byte, len(q))
		for i, v := range q {
			if s := int(v) + 128; s >= 1 && s <= 255 {
				want[i] = byte(s)
			} else {
				escapes++
			}
		}
		for _, o := range all() {
			got, check := within(t, len(q))
			o.Symbols(got, q)
			require.Equal(t, want, got, "%s", o.Name())
			check()
			back := make([]int16, len(q))
			require.Equal(t, escapes, o.Values(back, got, zero))
			for i, s := range got {
				if int(back[i]) != int(s)-zero {
					t.Fatalf("%s: value of %d is %d", o.Name(), s, back[i])
				}
			}
		}
	})
}

func TestSplitMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		fine := values(rng, dims*tokens)
		class2 := make([]byte, dims)
		for i := range class2 {
			class2[i] = byte(2 * rng.IntN(10))
		}
		for _, o := range all() {
			q := append([]int16{}, fine...)
			digits, check := within(t, len(q))
			ctx, check2 := within(t, len(q))
			o.Split(q, digits, ctx, class2)
			check()
			check2()
			for i, v := range fine {
				k := int16(math.Floor((float64(v) + 1) / 3))
				d := v - 3*k
				if k < 0 {
					d = -d
				}
				if q[i] != k || digits[i] != byte(d+1) {
					t.Fatalf("%s: %d became %d and %d", o.Name(), v, q[i], digits[i])
				}
			}
			again := make([]byte, len(q))
			o.Contexts(again, q, class2)
			require.Equal(t, ctx, again)
			for i, k := range q {
				want := class2[i%dims]
				if k != 0 {
					want++
				}
				if ctx[i] != want {
					t.Fatalf("%s: context of %d is %d", o.Name(), k, ctx[i])
				}
			}
			o.Merge(q, digits)
			require.Equal(t, fine, q, "%s", o.Name())
			pairs, check := within(t, len(ctx))
			copy(pairs, ctx)
			o.Pairs(pairs, digits)
			check()
			for i, p := range pairs {
				if p != 3*ctx[i]+digits[i] {
					t.Fatalf("%s: pair of %d and %d is %d", o.Name(), ctx[i], digits[i], p)
				}
			}
		}
	})
}

// Every value but -32768.
func TestSplitAll(t *testing.T) {
	every := make([]int16, 65536)
	for i := range every {
		every[i] = int16(max(i-32768, -32767))
	}
	var first [4][]int16
	for i, o := range all() {
		q := append([]int16{}, every...)
		digits, ctx := make([]byte, len(q)), make([]byte, len(q))
		o.Split(q, digits, ctx, make([]byte, 64))
		first[i] = append([]int16{}, q...)
		o.Merge(q, digits)
		require.Equal(t, every, q)
	}
	for _, q := range first[1:] {
		require.Equal(t, first[0], q)
	}
}

// bf16s returns rows of bf16 at a stride, of all magnitudes that matter.
func bf16s(rng *rand.Rand, stride, tokens, dims int, odd bool) []byte {
	b := make([]byte, (tokens-1)*stride+2*dims)
	for t := range tokens {
		for c := range dims {
			v := math.Float32bits(float32(rng.NormFloat64() * math.Exp2(float64(c%9-4))))
			if odd && rng.IntN(500) == 0 {
				v = rng.Uint32()
			}
			binary.LittleEndian.PutUint16(b[t*stride+2*c:], uint16(v>>16))
		}
	}
	return b
}

func bits(x []float32) []uint32 {
	b := make([]uint32, len(x))
	for i, v := range x {
		b[i] = math.Float32bits(v)
	}
	return b
}

func TestStatsQuantizeReconstruct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		stride := 2*dims + rapid.IntRange(0, 70).Draw(t, "gap")
		src := bf16s(rng, stride, tokens, dims, false)
		mean := make([]float32, dims)
		for i := range mean {
			mean[i] = float32(rng.NormFloat64())
		}
		inv := float32(math.Exp2(rapid.Float64Range(-3, 8).Draw(t, "inv")))
		limit := rapid.SampledFrom([]float32{32767, 3000, 40}).Draw(t, "limit")
		step := rapid.SampledFrom([]float32{0.125, 0.3359375, 27 * 0.3359375, 1.5e-30}).Draw(t, "step")
		var sums, squares [4][]uint32
		var fits [4]bool
		var qs [4][]int16
		var outs [4][]byte
		for i, o := range all() {
			sum, sq := make([]float32, dims), make([]float32, dims)
			for c := range sum {
				sum[c], sq[c] = 7, 7
			}
			o.StatsBF16(sum, sq, src, stride, tokens)
			sums[i], squares[i] = bits(sum), bits(sq)
			qs[i] = make([]int16, dims*tokens)
			fits[i] = o.QuantizeBF16(qs[i], src, stride, tokens, mean, inv, limit)
			if !fits[i] {
				copy(qs[i], values(rand.New(rand.NewPCG(1, 1)), dims*tokens))
			}
			var check func()
			outs[i], check = within(t, len(src))
			o.ReconstructBF16(outs[i], stride, tokens, qs[i], mean, step)
			check()
		}
		for i := range sums {
			require.Equal(t, sums[0], sums[i])
			require.Equal(t, squares[0], squares[i])
			require.Equal(t, fits[0], fits[i])
			require.Equal(t, qs[0], qs[i])
			require.True(t, bytes.Equal(outs[0], outs[i]))
		}
	})
}

// What comes back is within half a step, and nearest even.
func TestKnown(t *testing.T) {
	for _, o := range all() {
		src, mean := make([]byte, 128), make([]float32, 64)
		for c := range 64 {
			mean[c] = 1
			binary.LittleEndian.PutUint16(src[2*c:], uint16(math.Float32bits(1+float32(c-32)/4)>>16))
		}
		q := make([]int16, 64)
		require.True(t, o.QuantizeBF16(q, src, 128, 1, mean, 2, 32767))
		for c, v := range q {
			require.Equal(t, int16(math.RoundToEven(float64(c-32)/2)), v)
		}
		dst := make([]byte, 128)
		o.ReconstructBF16(dst, 128, 1, q, mean, 0.5)
		for c := range 64 {
			got := math.Float32frombits(uint32(binary.LittleEndian.Uint16(dst[2*c:])) << 16)
			require.Equal(t, 1+float32(q[c])/2, got)
		}
		// Ties of the conversion to bf16: 1 + 2^-8 goes to 1, 1 + 3 x 2^-8 to
		// 1 + 2^-6.
		for c := range q {
			q[c] = int16(c % 4)
		}
		o.ReconstructBF16(dst, 128, 1, q, mean, 1.0/256)
		for c := range 64 {
			want := []uint16{0x3f80, 0x3f80, 0x3f81, 0x3f82}[c%4]
			require.Equal(t, want, binary.LittleEndian.Uint16(dst[2*c:]))
		}
	}
}

// NaN, infinities and what is too large are found wherever they lie.
func TestQuantizeRefuses(t *testing.T) {
	const dims, tokens, stride = 128, 3, 300
	for _, o := range all() {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 100, -100} {
			for i := range dims * tokens {
				src := make([]byte, (tokens-1)*stride+2*dims)
				q, mean := make([]int16, dims*tokens), make([]float32, dims)
				require.True(t, o.QuantizeBF16(q, src, stride, tokens, mean, 1, 100))
				binary.LittleEndian.PutUint16(src[i/dims*stride+i%dims*2:], uint16(math.Float32bits(bad)>>16))
				require.False(t, o.QuantizeBF16(q, src, stride, tokens, mean, 1, 100), "%v at %d", bad, i)
			}
		}
	}
}

func TestLengths(t *testing.T) {
	o := rows.New(rows.Options{})
	var m rows.ClassMap
	m.Build(make([]uint8, 64), 1)
	for name, f := range map[string]func(){
		"scatter":     func() { o.Scatter(make([]byte, 127), make([]byte, 128), &m, 2) },
		"tokens":      func() { o.ScatterTokens(make([]byte, 128), make([]byte, 128), &m, 2, 1, 2) },
		"gather":      func() { o.Gather(make([]byte, 127), make([]byte, 128), &m, 2) },
		"values":      func() { o.Values(make([]int16, 63), make([]byte, 64), 0) },
		"symbols":     func() { o.Symbols(make([]byte, 64), make([]int16, 63)) },
		"contexts":    func() { o.Contexts(make([]byte, 64), make([]int16, 64), make([]byte, 63)) },
		"pairs":       func() { o.Pairs(make([]byte, 64), make([]byte, 63)) },
		"merge":       func() { o.Merge(make([]int16, 64), make([]byte, 63)) },
		"split":       func() { o.Split(make([]int16, 64), make([]byte, 64), make([]byte, 63), make([]byte, 64)) },
		"reconstruct": func() { o.ReconstructBF16(make([]byte, 255), 128, 2, make([]int16, 128), make([]float32, 64), 1) },
		"overlap":     func() { o.ReconstructBF16(make([]byte, 256), 127, 2, make([]int16, 128), make([]float32, 64), 1) },
		"stats":       func() { o.StatsBF16(make([]float32, 64), make([]float32, 63), make([]byte, 128), 128, 1) },
		"quantize":    func() { o.QuantizeBF16(make([]int16, 63), make([]byte, 128), 128, 1, make([]float32, 64), 1, 1) },
		"class":       func() { m.Build([]uint8{1}, 1) },
		"outside":     func() { o.Outside(make([]uint64, 1), make([]byte, 65), &rows.Set{}) },
		"split bf16":  func() { o.SplitBF16(make([]byte, 64), make([]byte, 63), make([]byte, 128), 128, 1, 64) },
		"join bf16":   func() { o.JoinBF16(make([]byte, 127), 128, 1, 64, make([]byte, 64), make([]byte, 64), 0) },
		"sums":        func() { o.SumBytes(make([]uint32, 64), make([]byte, 65)) },
		"zeros":       func() { o.Zeros(make([]uint64, 1), make([]byte, 65)) },
		"quantize to symbols": func() {
			o.QuantizeSymbolsBF16(make([]byte, 64), make([]int16, 63), make([]byte, 128), 128, 1, make([]float32, 64), 1, 1)
		},
	} {
		require.Panics(t, f, name)
	}
}

func TestCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(t)
		lo := rapid.IntRange(0, 255).Draw(t, "lo")
		width := rapid.IntRange(1, 256-lo).Draw(t, "width")
		if rapid.Bool().Draw(t, "narrow") {
			width = min(width, 20)
		}
		symbols := make([]byte, rapid.IntRange(0, 3000).Draw(t, "symbols"))
		var want [256]uint32
		for s := range want {
			want[s] = uint32(s)
		}
		first := want
		for i := range symbols {
			symbols[i] = byte(lo + rng.IntN(width))
			want[symbols[i]]++
		}
		for _, o := range all() {
			got := first
			o.Count(&got, symbols)
			require.Equal(t, want, got, "%s", o.Name())
		}
	})
}

func TestReconstructSymbols(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		symbols, q, mean := make([]byte, dims*tokens), make([]int16, dims*tokens), make([]float32, dims)
		few := rapid.Bool().Draw(t, "escapes")
		for i := range symbols {
			symbols[i] = byte(1 + rng.IntN(60))
			if few && rng.IntN(40) == 0 {
				symbols[i] = 0
			}
		}
		for c := range mean {
			mean[c] = float32(rng.NormFloat64())
		}
		stride := 2*dims + rapid.IntRange(0, 9).Draw(t, "gap")
		size := (tokens-1)*stride + 2*dims
		for _, o := range all() {
			want, got := make([]byte, size), make([]byte, size)
			escapes := o.Values(q, symbols, 31)
			o.ReconstructBF16(want, stride, tokens, q, mean, 0.3359375)
			require.Equal(t, escapes, o.ReconstructSymbolsBF16(got, stride, tokens, symbols, 31, mean, 0.3359375))
			require.True(t, bytes.Equal(want, got), "%s", o.Name())
		}
	})
}
