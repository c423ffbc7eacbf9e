package codec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

func newCoder(tb testing.TB) *rans.Coder {
	tb.Helper()
	c, err := rans.New(rans.Options{})
	require.NoError(tb, err)
	return c
}

// kv returns bytes like those of a cache: channels with means and widths of
// their own, some of them correlated over tokens.
func kv(s *Shape, seed uint64) []byte {
	g := rand.New(rand.NewPCG(seed, 1))
	raw := make([]byte, s.RawSize())
	for i := range s.Units() {
		u := s.unit(i)
		mean, width := make([]float64, u.dims), make([]float64, u.dims)
		for c := range u.dims {
			mean[c], width[c] = g.NormFloat64()*g.ExpFloat64()*2, math.Exp(g.NormFloat64()*.7)
		}
		row := make([]float32, u.dims)
		for t := range u.tokens {
			for c := range row {
				row[c] = float32(mean[c] + g.NormFloat64()*width[c])
			}
			if u.dtype == U8 {
				for c := range row {
					u.row(raw, t)[c] = byte(g.IntN(7) * 40)
				}
				continue
			}
			u.dtype.store(u.row(raw, t), row)
		}
	}
	return raw
}

func params(s *Shape, mode Mode, finest, coarsest int, step float32) *Params {
	p := &Params{Finest: finest, Coarsest: coarsest}
	for _, f := range s.Fields {
		fp := FieldParams{Mode: mode, Steps: []float32{step}}
		if f.Kind == Opaque && mode == Plain {
			fp.Mode = Lossless
		}
		p.Fields = append(p.Fields, fp)
	}
	return p
}

func encode(tb testing.TB, raw []byte, s *Shape, p *Params) []byte {
	tb.Helper()
	obj, err := NewEncoder(newCoder(tb)).Encode(nil, raw, s, p)
	require.NoError(tb, err)
	return obj
}

func decode(tb testing.TB, obj []byte, s *Shape, level int) []byte {
	tb.Helper()
	out := make([]byte, s.RawSize())
	require.NoError(tb, NewReader(newCoder(tb)).Decode(out, obj, s, level))
	return out
}

func kvShape(layers, heads, tokens, dims int, d DType) *Shape {
	return &Shape{Layers: layers, Heads: heads, Tokens: tokens, Fields: []Field{{K, d, dims}, {V, d, dims}}}
}

var shapes = map[string]*Shape{
	"bf16":           kvShape(3, 2, 256, 128, BF16),
	"fp32":           kvShape(1, 2, 64, 64, F32),
	"fp16":           kvShape(1, 2, 100, 96, F16),
	"fp8 e4m3":       kvShape(2, 2, 256, 128, F8E4M3),
	"fp8 e5m2":       kvShape(1, 1, 130, 33, F8E5M2),
	"one token":      kvShape(2, 1, 1, 16, BF16),
	"two tokens":     kvShape(2, 1, 2, 16, BF16),
	"odd":            kvShape(1, 3, 77, 5, BF16),
	"one dim":        kvShape(1, 1, 200, 1, BF16),
	"latent":         {Layers: 2, Heads: 1, Tokens: 64, Fields: []Field{{Latent, BF16, 512}, {Rope, BF16, 64}}},
	"mixed, K wider": {FirstLayer: 7, Layers: 1, Heads: 2, Tokens: 64, Fields: []Field{{K, F32, 192}, {V, BF16, 128}, {Opaque, U8, 9}}},
}

func TestExactModes(t *testing.T) {
	for name, s := range shapes {
		raw := kv(s, 1)
		for _, mode := range []Mode{Raw, Lossless} {
			t.Run(fmt.Sprint(name, " ", mode), func(t *testing.T) {
				obj := encode(t, raw, s, params(s, mode, 0, 0, 1))
				require.Equal(t, raw, decode(t, obj, s, 0))
				require.Equal(t, raw, decode(t, obj, s, 3))
			})
		}
	}
	s := shapes["bf16"]
	n := len(encode(t, kv(s, 1), s, params(s, Lossless, 0, 0, 1)))
	require.Less(t, float64(n), .72*float64(s.RawSize()), "lossless does not shrink KV")
}

// Every level is within half a step (and the rounding of the type) of the input.
func TestPlainErrorIsHalfAStep(t *testing.T) {
	const step = 0.1
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			raw := kv(s, 2)
			p := params(s, Plain, 0, 3, step)
			obj := encode(t, raw, s, p)
			h, err := Parse(obj)
			require.NoError(t, err)
			for level := range 4 {
				got := decode(t, obj[:h.Prefix(level)], s, level)
				require.Equal(t, got, decode(t, obj, s, level), "a prefix decodes like the object")
				for i := range s.Units() {
					checkError(t, h, obj, raw, got, i, level)
				}
			}
		})
	}
}

func checkError(t *testing.T, h *Header, obj, raw, got []byte, index, level int) {
	t.Helper()
	u := h.unit(index)
	if h.modes[index] != basePlain {
		for k := range u.tokens {
			require.Equal(t, u.row(raw, k), u.row(got, k), "an exact unit")
		}
		return
	}
	at := h.starts[index]
	step := float64(fromBF16(uint16(obj[at])|uint16(obj[at+1])<<8)) * float64(pow3[level])
	a, b := make([]float32, u.dims), make([]float32, u.dims)
	for k := range u.tokens {
		u.dtype.load(a, u.row(raw, k))
		u.dtype.load(b, u.row(got, k))
		for c := range a {
			x, y := float64(a[c]), float64(b[c])
			ulp := math.Abs(y)/float64(int(1)<<dtypes[u.dtype].man) + 1e-2*float64(dtypes[u.dtype].size%2)
			if math.Abs(x-y) > step*.5001+ulp {
				t.Fatalf("unit %d token %d channel %d: %v became %v at step %v", index, k, c, x, y, step)
			}
		}
	}
}

func TestNestedLevelsAreTheCoarseObject(t *testing.T) {
	s := shapes["bf16"]
	raw := kv(s, 3)
	nested := encode(t, raw, s, params(s, Plain, 0, 3, .06))
	single := encode(t, raw, s, params(s, Plain, 0, 0, .06))
	require.Equal(t, decode(t, single, s, 0), decode(t, nested, s, 0), "the finest level does not depend on the coarser ones")
	require.Less(t, float64(len(nested)), 1.015*float64(len(single)))
	t.Logf("nested %d, finest alone %d: %+.2f %%", len(nested), len(single), 100*float64(len(nested))/float64(len(single))-100)
}

func TestEncodingIsDeterministic(t *testing.T) {
	e := NewEncoder(newCoder(t))
	s := shapes["odd"]
	first := encode(t, kv(s, 9), s, params(s, Plain, 0, 3, .06))
	for _, name := range []string{"bf16", "odd", "mixed, K wider", "odd", "latent", "odd"} {
		s := shapes[name]
		again, err := e.Encode(nil, kv(s, 9), s, params(s, Plain, 0, 3, .06))
		require.NoError(t, err)
		if name == "odd" {
			require.Equal(t, first, again, "what an encoder did before shows")
		}
	}
}

// Layers that are decoded alone, from their ranges alone, are those of the
// whole.
func TestLayerRanges(t *testing.T) {
	s := shapes["bf16"]
	obj := encode(t, kv(s, 5), s, params(s, Plain, 0, 3, .06))
	h, err := Parse(obj[:4096])
	require.NoError(t, err)
	r := NewReader(newCoder(t))
	for level := range 4 {
		want := decode(t, obj, s, level)
		for low := range s.Layers {
			for high := low + 1; high <= s.Layers; high++ {
				var passes [][]byte
				for p := range 4 - level {
					at, n := h.Range(p, low, high)
					passes = append(passes, obj[at:at+n])
				}
				got := make([]byte, (high-low)*s.LayerSize())
				require.NoError(t, r.DecodeLayers(got, h, s, passes, low, high, level))
				require.Equal(t, want[low*s.LayerSize():high*s.LayerSize()], got)
			}
		}
	}
}

// What one rank of a tensor-parallel group stores of 8 heads is what another
// reads: units do not look at one another's values.
func TestHeadGroups(t *testing.T) {
	whole := kvShape(2, 8, 128, 64, BF16)
	raw := kv(whole, 6)
	p := params(whole, Plain, 0, 3, .06)
	want := decode(t, encode(t, raw, whole, p), whole, 1)
	for _, tp := range []int{2, 4} {
		part := kvShape(2, 8/tp, 128, 64, BF16)
		n := part.LayerSize()
		for rank := range tp {
			var in, out []byte
			for layer := range whole.Layers {
				at := layer*whole.LayerSize() + rank*n
				in, out = append(in, raw[at:at+n]...), append(out, want[at:at+n]...)
			}
			require.Equal(t, out, decode(t, encode(t, in, part, params(part, Plain, 0, 3, .06)), part, 1))
		}
	}
}

func TestPlan(t *testing.T) {
	s := shapes["bf16"]
	raw := kv(s, 4)
	p := params(s, Plain, 0, 3, .06)
	m := plan.Uniform(s.Units(), s.Tokens, 0)
	m = m.Set(s.Tokens, 0, s.Units(), 10, 100, 2) // a range of tokens, everywhere
	m = m.Set(s.Tokens, 4, 6, 0, s.Tokens, 3)     // two heads
	p.Plan = m
	p.Sinks = 4
	obj := encode(t, raw, s, p)
	whole := params(s, Plain, 0, 3, .06)
	whole.Sinks = p.Sinks
	flat := encode(t, raw, s, whole)
	require.Less(t, len(obj), len(flat))
	var flats [4][]byte
	for l := range flats {
		flats[l] = decode(t, flat, s, l)
	}
	for level := range 4 {
		got := decode(t, obj, s, level)
		walk := m.Walk()
		for i := range s.Units() {
			u := s.unit(i)
			k := 0
			for _, r := range walk.Next(nil, s.Tokens) {
				want := flats[max(level, int(r.Level))]
				for range r.Tokens {
					if k < p.Sinks {
						require.Equal(t, u.row(raw, k), u.row(got, k))
					}
					require.Equal(t, u.row(want, k), u.row(got, k), "unit %d token %d", i, k)
					k++
				}
			}
			require.Equal(t, s.Tokens, k)
		}
	}
}
