package coded

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/calibrate"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

const theta = 10000

// model is a namespace of a Llama with so many KV heads, each a part.
func model(heads uint32) *namespace.Descriptor {
	return &namespace.Descriptor{
		WeightsID: [32]byte{7}, KVDtype: "bfloat16", Quantization: namespace.QuantizationNone, ChunkTokens: 64, Spans: []uint32{0, 2},
		Layout: namespace.Layout{Name: namespace.LayoutCanonical},
		Config: []namespace.ConfigField{{Name: "head_dim", Value: "16"}, {Name: "rope.kind", Value: "default"}, {Name: "rope.theta", Value: fmt.Sprint(theta)}},
		Groups: []namespace.Group{{Kind: namespace.KindFull, Layers: []uint32{0, 1, 2, 3}, KVHeads: heads, Dk: 16, Dv: 16, TokensPerEntry: 1, HeadGroup: 1}},
	}
}

// turnOf has the angle of each pair at position 1.
func turnOf(dims int) []float64 {
	turn := make([]float64, dims/2)
	for i := range turn {
		turn[i] = math.Pow(theta, -2*float64(i)/float64(dims))
	}
	return turn
}

// recorded is KV of all layers and heads of a model: a few hidden numbers of a
// token make all heads, and the position turns keys.
func recorded(d *namespace.Descriptor, position int, seed uint64) (raw []byte, s *codec.Shape) {
	group := d.Groups[0]
	s = &codec.Shape{Layers: len(group.Layers), Heads: int(group.KVHeads), Tokens: int(d.ChunkTokens), Fields: []codec.Field{
		{Kind: codec.K, DType: codec.BF16, Dims: int(group.Dk)}, {Kind: codec.V, DType: codec.BF16, Dims: int(group.Dv)},
	}}
	const hidden = 4
	dims := int(group.Dk)
	g := rand.New(rand.NewPCG(9, 9)) // the model's weights
	mix := make([]float64, s.Layers*2*s.Heads*dims*hidden)
	for i := range mix {
		mix[i] = g.NormFloat64() * math.Exp(-float64(i%hidden)/2)
	}
	g = rand.New(rand.NewPCG(seed, uint64(position)))
	turn := turnOf(dims)
	raw = make([]byte, s.RawSize())
	v := make([]float64, dims)
	for token := range s.Tokens {
		var h [hidden]float64
		for i := range h {
			h[i] = g.NormFloat64()
		}
		for layer := range s.Layers {
			for head := range s.Heads {
				row := raw[((layer*s.Heads+head)*s.Tokens+token)*s.RowSize():]
				for field := range 2 {
					for k := range v {
						v[k] = 1 + .02*g.NormFloat64()
						for i := range h {
							v[k] += mix[(((layer*2+field)*s.Heads+head)*dims+k)*hidden+i] * h[i]
						}
					}
					for i := range turn {
						if sin, cos := math.Sincos(float64(position+token) * turn[i]); field == 0 {
							x, y := v[i], v[i+dims/2]
							v[i], v[i+dims/2] = x*cos-y*sin, y*cos+x*sin
						}
					}
					for k := range v {
						binary.LittleEndian.PutUint16(row[2*(field*dims+k):], uint16((math.Float32bits(float32(v[k]))+0x8000)>>16))
					}
				}
			}
		}
	}
	return raw, s
}

// learn a basis from a few recorded chunks.
func learn(tb testing.TB, d *namespace.Descriptor, unit basis.Unit) *basis.Basis {
	tb.Helper()
	group := d.Groups[0]
	joined := 1
	if unit == basis.Bundle {
		joined = int(group.KVHeads)
	}
	l, err := calibrate.New(calibrate.Options{
		Shape: basis.Shape{
			Unit: unit, Layers: len(group.Layers), Heads: int(group.KVHeads), Joined: joined,
			Fields: []basis.Field{{Kind: uint8(codec.K), Dims: int(group.Dk)}, {Kind: uint8(codec.V), Dims: int(group.Dv)}},
			Rope:   basis.Rope{Pairing: basis.Halves, Dims: int(group.Dk), Positions: 4096},
		},
		Steps: []float32{calibrate.DefaultStep(unit, codec.K), calibrate.DefaultStep(unit, codec.V)}, Turn: turnOf(int(group.Dk)),
	})
	require.NoError(tb, err)
	for i := range 8 {
		raw, s := recorded(d, i*int(d.ChunkTokens), 100)
		require.NoError(tb, l.Add(raw, s, i*int(d.ChunkTokens)))
	}
	b, err := l.Basis(nil, nil)
	require.NoError(tb, err)
	made, err := basis.Parse(b)
	require.NoError(tb, err)
	return made
}

// bases are some; the first is that of all models.
type bases []*basis.Basis

func (l bases) Find(id basis.ID) *basis.Basis {
	for _, b := range l {
		if b.ID() == id {
			return b
		}
	}
	return nil
}

func (l bases) Of([32]byte) *basis.Basis {
	if len(l) == 0 {
		return nil
	}
	return l[0]
}

func (l bases) Bundles() bool {
	return slices.ContainsFunc(l, func(b *basis.Basis) bool { return b.Unit == basis.Bundle })
}

// recordedChunk is one as a model's engine would store it.
func recordedChunk(t testing.TB, d *namespace.Descriptor, n byte, quality uint8) (list []storage.PartBytes) {
	t.Helper()
	layout := layoutOf(d)
	raw, s := recorded(d, int(n)*int(d.ChunkTokens), 1)
	for i, p := range d.Parts() {
		var b []byte
		size := s.Tokens * s.RowSize()
		for _, id := range p.Layers {
			layer := slices.Index(d.Groups[0].Layers, id)
			at := (layer*s.Heads + int(p.FirstHead)) * size
			b = append(b, raw[at:at+int(p.Heads)*size]...)
		}
		pd, err := tiertest.Raw(part.Descriptor{
			ID: part.ID{Chunk: keys.Key{n}}, Parent: keys.Key{n - 1}, Ordinal: uint32(n), Tokens: uint16(d.ChunkTokens), Quality: quality,
		}, layout[i], b)
		require.NoError(t, err)
		list = append(list, storage.PartBytes{Part: pd, Bytes: b})
	}
	return list
}

// difference is the root of the mean square of what two parts differ by, in
// units of that of the first.
func difference(a, b []byte) float64 {
	sum, all := 0., 0.
	for i := 0; i+1 < len(a); i += 2 {
		x, y := number(a[i:]), number(b[i:])
		sum, all = sum+(x-y)*(x-y), all+x*x
	}
	return math.Sqrt(sum / all)
}

// Calibrated parts are of the quality of their level, as near as plain ones, and
// fewer bytes; what has a history loses nothing.
func TestCalibratedParts(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	b := learn(t, d, basis.Part)
	pool := newPool(t, Options{Workers: 2, Bases: bases{b}})
	stored := map[Mode]int{}
	for mode := L0; mode <= CalibratedL3; mode++ {
		under := newMemory()
		tier := pool.Stage(d, layout, mode).Over(under)
		exact, lossy := recordedChunk(t, d, 3, 0), recordedChunk(t, d, 4, 2)
		put(t, tier, exact)
		put(t, tier, lossy)
		for i := range exact {
			kept := under.parts[exact[i].Part.ID]
			require.NoError(t, part.VerifySeal(kept.Part))
			require.NoError(t, part.Verify(kept.Part, kept.Bytes))
			stored[mode] += len(kept.Bytes)
			require.Equal(t, mode.plain().Quality(), kept.Part.Quality)
			h, err := codec.Parse(kept.Bytes)
			require.NoError(t, err)
			if mode.Calibrated() {
				require.Equal(t, basisNumber(b.ID()), kept.Part.Basis)
				require.Equal(t, b.ID(), h.Basis.ID)
				require.Equal(t, 3*64, h.Basis.Position)
				require.EqualValues(t, kept.Part.ID.HeadGroup, h.Basis.FirstHead)
			} else {
				require.Zero(t, kept.Part.Basis)
				require.Nil(t, h.Basis)
			}
			got, raw, err := get(t, tier, exact[i].Part.ID, len(exact[i].Bytes))
			require.NoError(t, err)
			require.True(t, got.Raw())
			require.Zero(t, got.Basis)
			require.Equal(t, mode.Quality(), got.Quality)
			level, _ := mode.lossy()
			require.Less(t, difference(exact[i].Bytes, raw), .04*math.Pow(3, float64(level)), "%v", mode)
			require.NotEqual(t, exact[i].Bytes, raw)

			got, raw, err = get(t, tier, lossy[i].Part.ID, len(lossy[i].Bytes))
			require.NoError(t, err)
			require.Equal(t, *lossy[i].Part, got)
			require.True(t, bytes.Equal(lossy[i].Bytes, raw), "quantized twice")
		}
	}
	for level := range Mode(4) {
		require.Less(t, float64(stored[CalibratedL0+level]), .8*float64(stored[L0+level]), "level %d", level)
	}
	use := pool.Use(b.ID())
	require.EqualValues(t, 4*len(layout), use.Encoded)
	require.Equal(t, use.Encoded, use.Decoded)
	require.Equal(t, 4*layout.Bytes(), use.EncodedBytes)
	require.Equal(t, use.EncodedBytes, use.DecodedBytes)
	require.Less(t, use.EncodedStored, use.EncodedBytes/3)
	require.Zero(t, pool.Stats().Fallbacks)
}

// Where the basis does not fit, parts are plain, of the same level, and counted.
func TestFallbacks(t *testing.T) {
	b := learn(t, model(4), basis.Part)
	for name, c := range map[string]struct {
		change func(d *namespace.Descriptor)
		none   bool
		want   Fallback
	}{
		"no basis":           {none: true, want: NoBasis},
		"another head count": {change: func(d *namespace.Descriptor) { d.Groups[0].KVHeads = 8 }, want: OtherShape},
		"more layers":        {change: func(d *namespace.Descriptor) { d.Spans, d.Groups[0].Layers = []uint32{0}, []uint32{0, 1, 2, 3, 4} }, want: OtherShape},
		"layers with gaps":   {change: func(d *namespace.Descriptor) { d.Spans, d.Groups[0].Layers = []uint32{0}, []uint32{0, 1, 3} }, want: OtherShape},
		"other dims":         {change: func(d *namespace.Descriptor) { d.Groups[0].Dv = 32 }, want: OtherShape},
		"other angles":       {change: func(d *namespace.Descriptor) { d.Config[2].Value = "500000" }, want: OtherRope},
		"an unknown kind":    {change: func(d *namespace.Descriptor) { d.Config[1].Value = "yarn" }, want: OtherRope},
		"another scaling": {change: func(d *namespace.Descriptor) {
			d.Config[1].Value = "linear"
			d.Config = append(d.Config, namespace.ConfigField{Name: "rope.factor", Value: "4"})
		}, want: OtherRope},
		"no RoPE": {change: func(d *namespace.Descriptor) { d.Config = nil }, want: OtherRope},
		"a RoPE of two minds": {change: func(d *namespace.Descriptor) {
			d.Config = append(d.Config, namespace.ConfigField{Name: "rope.top_theta", Value: "5000"})
		}, want: OtherRope},
		"beyond its positions": {change: func(d *namespace.Descriptor) { d.ChunkTokens = 1024 }, want: Position},
		"all is well":          {want: NoFallback},
	} {
		t.Run(name, func(t *testing.T) {
			d := model(4)
			if c.change != nil {
				c.change(d)
			}
			layout := layoutOf(d)
			known := bases{b}
			if c.none {
				known = nil
			}
			pool := newPool(t, Options{Bases: known})
			stage := pool.Stage(d, layout, CalibratedL1)
			under := newMemory()
			list := recordedChunk(t, d, 3, 0)
			if name == "beyond its positions" {
				list = recordedChunk(t, d, 4, 0)
			}
			put(t, stage.Over(under), list)
			want := Fallbacks{}
			if c.want != NoFallback {
				want.add(c.want, len(layout))
			}
			require.Equal(t, want, pool.Stats().Fallbacks)
			for _, p := range list {
				require.Equal(t, c.want == NoFallback, under.parts[p.Part.ID].Part.Basis != 0)
				got, raw, err := get(t, stage.Over(under), p.Part.ID, len(p.Bytes))
				require.NoError(t, err)
				require.Equal(t, L1.Quality(), got.Quality)
				require.Less(t, difference(p.Bytes, raw), .12)
			}
			said := pool.Describe(d, CalibratedL1)
			switch c.want {
			case NoFallback, Position:
				require.Equal(t, "calibrated:L1 part "+b.ID().String()[:16], said)
			default:
				require.Equal(t, "L1 ("+string(c.want)+")", said)
			}
		})
	}
}

// A basis that is not here, or another one of that name in the descriptor.
func TestWithoutTheBasis(t *testing.T) {
	d := model(2)
	layout := layoutOf(d)
	under := newMemory()
	list := recordedChunk(t, d, 1, 0)
	b := learn(t, d, basis.Part)
	put(t, newPool(t, Options{Bases: bases{b}}).Stage(d, layout, CalibratedL1).Over(under), list)
	pool := newPool(t, Options{})
	without := pool.Stage(d, layout, Raw).Over(under)
	_, raw, err := get(t, without, list[0].Part.ID, len(list[0].Bytes))
	require.ErrorIs(t, err, fault.Miss)
	require.Empty(t, raw)
	require.Empty(t, under.deleted, "it stays for who can read it")
	require.EqualValues(t, 1, pool.Stats().Unknown)
	with := newPool(t, Options{Bases: bases{b}}).Stage(d, layout, Raw).Over(under)
	_, _, err = get(t, with, list[0].Part.ID, len(list[0].Bytes))
	require.NoError(t, err)

	p := under.parts[list[0].Part.ID]
	p.Part.Basis++
	require.NoError(t, part.Seal(p.Part))
	_, _, err = get(t, with, list[0].Part.ID, len(list[0].Bytes))
	require.ErrorIs(t, err, fault.Corrupt)
	require.Len(t, under.deleted, 1)
}
