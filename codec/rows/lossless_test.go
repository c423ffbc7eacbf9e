package rows_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/codec/rows"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSplitJoinBF16(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		stride := 2*dims + rapid.IntRange(0, 70).Draw(t, "gap")
		src, check := within(t, (tokens-1)*stride+2*dims)
		for i := range src {
			src[i] = byte(rng.Uint32())
		}
		first := rapid.IntRange(0, 255).Draw(t, "first")
		for _, o := range all() {
			exps, check1 := within(t, dims*tokens)
			rests, check2 := within(t, dims*tokens)
			o.SplitBF16(exps, rests, src, stride, tokens, dims)
			check1()
			check2()
			symbols, zeros, greatest := make([]byte, len(exps)), 0, byte(0)
			for i := range exps {
				v := binary.LittleEndian.Uint16(src[i/dims*stride+i%dims*2:])
				if exps[i] != byte(v<<1>>8) || rests[i] != byte(v)&0x7f|byte(v>>15)<<7 {
					t.Fatalf("%s: %#x became %d and %d", o.Name(), v, exps[i], rests[i])
				}
				if symbols[i] = byte(int(exps[i]) - first + 1); symbols[i] == 0 {
					zeros++
				}
				greatest = max(greatest, symbols[i])
			}
			back, check3 := within(t, len(src))
			n, most := o.JoinBF16(back, stride, tokens, dims, symbols, rests, first)
			check3()
			require.Equal(t, zeros, n)
			require.Equal(t, greatest, most)
			for k := range tokens {
				require.Equal(t, src[k*stride:k*stride+2*dims], back[k*stride:k*stride+2*dims], "%s", o.Name())
			}
		}
		check()
	})
}

func TestSumBytes(t *testing.T) {
	for _, dims := range []int{1, 32, 64, 65, 96, 128} {
		for _, tokens := range []int{0, 1, 255, 256, 257, 1000} {
			rng := rand.New(rand.NewPCG(uint64(dims), uint64(tokens)))
			src, want := make([]byte, dims*tokens), make([]uint32, dims)
			for c := range want {
				want[c] = uint32(c) << 20
			}
			start := append([]uint32{}, want...)
			for i := range src {
				src[i] = byte(255 - rng.IntN(3))
				want[i%dims] += uint32(src[i])
			}
			for _, o := range all() {
				got := append([]uint32{}, start...)
				o.SumBytes(got, src)
				require.Equal(t, want, got, "%s, %d x %d", o.Name(), tokens, dims)
			}
		}
	}
}

func TestOutside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(t)
		b := make([]byte, rapid.IntRange(0, 300).Draw(t, "n"))
		var set rows.Set
		var in [256]bool
		for range rapid.SampledFrom([]int{0, 1, 20, 400, 4000}).Draw(t, "members") {
			v := byte(rng.Uint32())
			set.Add(v)
			in[v] = true
		}
		for v := range in {
			require.Equal(t, in[v], set.Has(byte(v)))
		}
		want, n := make([]uint64, (len(b)+63)/64), 0
		for i := range b {
			if b[i] = byte(rng.Uint32()); !in[b[i]] {
				want[i/64] |= 1 << (i % 64)
				n++
			}
		}
		for _, o := range all() {
			got := make([]uint64, len(want))
			for i := range got {
				got[i] = rng.Uint64()
			}
			require.Equal(t, n, o.Outside(got, b, &set), o.Name())
			require.Equal(t, want, got, o.Name())
		}
	})
}

func TestQuantizeSymbols(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims, tokens := shape(t)
		rng := source(t)
		stride := 2*dims + rapid.IntRange(0, 70).Draw(t, "gap")
		src := bf16s(rng, stride, tokens, dims, rapid.IntRange(0, 3).Draw(t, "odd") == 0)
		mean := make([]float32, dims)
		for i := range mean {
			mean[i] = float32(rng.NormFloat64())
		}
		inv := rapid.SampledFrom([]float32{0.3, 1, 2.5, 40}).Draw(t, "inv")
		limit := rapid.SampledFrom([]float32{32754, 1213, 40}).Draw(t, "limit")
		reference := all()[0]
		q := make([]int16, dims*tokens)
		fits := reference.QuantizeBF16(q, src, stride, tokens, mean, inv, limit)
		want := make([]byte, len(q))
		reference.Symbols(want, q)
		for _, o := range all() {
			got, check := within(t, len(want))
			require.Equal(t, fits, o.QuantizeSymbolsBF16(got, make([]int16, len(got)), src, stride, tokens, mean, inv, limit))
			check()
			if fits {
				require.Equal(t, want, got, "%s", o.Name())
			}
		}
	})
}

func TestPlaces(t *testing.T) {
	var m rows.ClassMap
	m.Build([]uint8{1, 0, 1, 0, 0}, 3)
	require.Equal(t, []int{64, 0, 80, 16, 32}, m.Places(16))
}

func TestMeanCost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(t)
		n := rapid.IntRange(0, 200).Draw(t, "n")
		mean, variance := make([]float32, n), make([]float32, n)
		size := math.Exp2(rapid.Float64Range(-60, 63).Draw(t, "size"))
		for c := range mean {
			mean[c] = float32(rng.NormFloat64() * size)
			variance[c] = float32(min(rng.ExpFloat64()*size*size*float64(rng.IntN(3)), math.MaxFloat32))
		}
		step := float32(math.Exp2(rapid.Float64Range(-90, 90).Draw(t, "step")))
		scale := float32(math.Exp2(float64(rapid.IntRange(-6, 10).Draw(t, "scale"))))
		most := rapid.SampledFrom([]float32{0, 3, 7, 127}).Draw(t, "most")
		ops := all()
		want := ops[0].MeanCost(mean, variance, step, scale, most, step*step/12)
		for _, o := range ops[1:] {
			require.Equal(t, want, o.MeanCost(mean, variance, step, scale, most, step*step/12))
		}
	})
	require.Equal(t, float32(2), rows.RoundMean(5, 1, 2, 7), "ties to even")
	require.Equal(t, float32(-7), rows.RoundMean(-500, 1, 2, 7))
	require.Equal(t, uint32(1<<23), rows.Log2(1))
	require.Equal(t, uint32(3<<22), rows.Log2(2))

	// The square of such a step is no finite number, nor is that of such a mean.
	mean, variance := make([]float32, 80), make([]float32, 80)
	for c := range mean {
		mean[c] = 1 << 65
	}
	for _, o := range all() {
		got := o.MeanCost(mean, variance, 1<<64, 1, 0, float32(math.Inf(1)))
		require.Equal(t, 80*uint64(rows.Log2(1<<40)), got)
	}
}

func TestZeros(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(t)
		b := make([]byte, rapid.IntRange(0, 300).Draw(t, "n"))
		few := rapid.IntRange(1, 50).Draw(t, "few")
		want := make([]uint64, (len(b)+63)/64)
		for i := range b {
			if b[i] = byte(1 + rng.IntN(255)); rng.IntN(few) == 0 {
				b[i] = 0
				want[i/64] |= 1 << (i % 64)
			}
		}
		for _, o := range all() {
			got := make([]uint64, len(want))
			for i := range got {
				got[i] = rng.Uint64()
			}
			o.Zeros(got, b)
			require.Equal(t, want, got, "%s", o.Name())
		}
	})
}
