package codec

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
)

const testStep = 0.125 // of all components, at level 0

// cosines is the bytes of a basis whose matrices are cosine transforms, and whose
// means and classes depend on the unit.
func cosines(tb testing.TB, s *basis.Shape) []byte {
	tb.Helper()
	var list []basis.Transform
	for i := range s.Units() {
		_, f, _ := s.UnitOf(i)
		n := s.Size(f)
		t := basis.Transform{Mean: make([]float32, n), Steps: make([]uint16, n), Classes: make([]uint8, n), Matrix: make([]float32, n*n)}
		for j := range n {
			t.Mean[j], t.Steps[j], t.Classes[j] = float32((i+j)%5)-2, bf16(testStep), uint8((j+i)%s.Fields[f].Classes)
			for d := range n {
				t.Matrix[j*n+d] = float32(math.Sqrt(2/float64(n)) * math.Cos(math.Pi*float64(j)*(float64(d)+.5)/float64(n)))
				if j == 0 {
					t.Matrix[d] = float32(math.Sqrt(1 / float64(n)))
				}
			}
		}
		list = append(list, t)
	}
	turn := make([]float64, s.Rope.Dims/2)
	for i := range turn {
		turn[i] = math.Pow(100, -float64(i)/float64(len(turn)))
	}
	b, err := basis.Append(nil, s, turn, list)
	require.NoError(tb, err)
	return b
}

// basisFor is a basis for the K and V of shape, which starts at its first layer,
// with so many heads in the model and in a unit.
func basisFor(tb testing.TB, s *Shape, heads, joined int) *basis.Basis {
	tb.Helper()
	bs := &basis.Shape{Unit: basis.Part, FirstLayer: s.FirstLayer, Layers: s.Layers, Heads: heads, Joined: joined}
	if joined == heads {
		bs.Unit = basis.Bundle
	}
	for _, f := range s.Fields {
		if f.Kind == K {
			bs.Rope = basis.Rope{Pairing: basis.Halves, Dims: f.Dims / 4 * 2, Positions: 4096}
		}
		if f.Kind <= Latent {
			bs.Fields = append(bs.Fields, basis.Field{Kind: uint8(f.Kind), Classes: 3, Dims: f.Dims})
		}
	}
	if bs.Rope.Dims == 0 {
		bs.Rope = basis.Rope{}
	}
	b, err := basis.Parse(cosines(tb, bs))
	require.NoError(tb, err)
	return b
}

func calibratedParams(s *Shape, b *basis.Basis, finest, coarsest int) *Params {
	p := params(s, Plain, finest, coarsest, .1)
	p.Calibration = &Calibration{Basis: b, Position: 300}
	for i, f := range s.Fields {
		if b.Field(uint8(f.Kind)) >= 0 {
			p.Fields[i].Mode = Calibrated
		}
	}
	return p
}

func readerOf(tb testing.TB, list ...*basis.Basis) *Reader {
	r := NewReader(newCoder(tb))
	r.SetBases(func(id basis.ID) *basis.Basis {
		for _, b := range list {
			if b.ID() == id {
				return b
			}
		}
		return nil
	})
	return r
}

func decodeBy(tb testing.TB, b *basis.Basis, obj []byte, s *Shape, level int) []byte {
	tb.Helper()
	out := make([]byte, s.RawSize())
	require.NoError(tb, readerOf(tb, b).Decode(out, obj, s, level))
	return out
}

// Components are off by half a step each at most, and the transform keeps lengths:
// so no row is off by more, at any level, in any type.
func TestCalibratedErrorIsHalfAStep(t *testing.T) {
	for name, c := range map[string]struct {
		s      *Shape
		joined int
		scale  float32
	}{
		"part":            {kvShape(2, 2, 70, 16, BF16), 1, 0},
		"joined":          {kvShape(2, 4, 70, 16, BF16), 2, 0},
		"bundle, scaled":  {&Shape{FirstLayer: 5, Layers: 2, Heads: 3, Tokens: 65, Fields: []Field{{K, F32, 12}, {V, F16, 20}}}, 3, 1.37},
		"fp8":             {kvShape(1, 2, 64, 16, F8E4M3), 2, 2},
		"latent and rope": {&Shape{Layers: 2, Heads: 1, Tokens: 66, Fields: []Field{{Latent, BF16, 40}, {Rope, BF16, 8}}}, 1, 0},
		"one token":       {kvShape(1, 2, 1, 8, BF16), 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			raw := kv(c.s, 3)
			b := basisFor(t, c.s, 8/c.joined*c.joined, c.joined)
			p := calibratedParams(c.s, b, 0, 3)
			p.Calibration.Scale = c.scale
			p.Calibration.FirstHead = c.joined
			p.Sinks = c.s.Tokens / 64 * 2
			if b.Unit == basis.Bundle || b.Heads == c.joined {
				p.Calibration.FirstHead = 0
			}
			obj := encode(t, raw, c.s, p)
			h, err := Parse(obj)
			require.NoError(t, err)
			require.Equal(t, c.s, h.Uncoded())
			require.Equal(t, b.ID(), h.Basis.ID)
			if c.s.Tokens > 1 {
				require.Equal(t, basePlain, h.modes[0])
			}
			scale := float64(max(c.scale, 1))
			if c.scale == 0 {
				scale = 1
			}
			for level := range 4 {
				got := decodeBy(t, b, obj[:h.Prefix(level)], c.s, level)
				for i := range h.Units() {
					u := h.unit(i)
					if !h.Basis.transforms(u.field) || h.modes[i] != basePlain {
						continue
					}
					want, have := make([]float32, u.dims), make([]float32, u.dims)
					limit := .51*testStep*scale*float64(pow3[level])*math.Sqrt(float64(u.dims)) + .01
					for token := range u.tokens {
						sum, size := 0., 0.
						for k := range h.joined() {
							part := want[:u.dims/h.joined()]
							c.s.Load(part, raw, u.layer, u.field, u.head*h.joined()+k, token)
							c.s.Load(have[:len(part)], got, u.layer, u.field, u.head*h.joined()+k, token)
							for d, v := range part {
								sum += math.Pow(float64(v-have[d]), 2)
								size += math.Pow(float64(v), 2)
							}
						}
						rounding := math.Sqrt(size) * math.Pow(2, -float64(dtypes[u.dtype].man)-1)
						require.LessOrEqual(t, math.Sqrt(sum), limit+rounding, "unit %d token %d level %d", i, token, level)
						if token < p.Sinks {
							require.Zero(t, sum, "a sink is not exact")
						} else if level == 3 {
							require.Positive(t, sum)
						}
					}
				}
			}
		})
	}
}

// What a unit decodes to does not depend on how many heads and layers are coded
// beside it.
func TestCalibratedObjectsAgree(t *testing.T) {
	s := kvShape(3, 8, 70, 8, BF16)
	raw := kv(s, 4)
	b := basisFor(t, s, 8, 2)
	all := calibratedParams(s, b, 0, 3)
	obj := encode(t, raw, s, all)
	for level := range 4 {
		whole := decodeBy(t, b, obj, s, level)
		// Head groups of TP 2 and 4, a layer of its own.
		for _, heads := range []int{4, 2} {
			one := &Shape{FirstLayer: 1, Layers: 1, Heads: heads, Tokens: s.Tokens, Fields: s.Fields}
			for first := 0; first < 8; first += heads {
				at := s.LayerSize() + first*s.Tokens*s.RowSize()
				p := calibratedParams(one, b, 0, 3)
				p.Calibration.FirstHead = first
				part := encode(t, raw[at:at+one.RawSize()], one, p)
				require.True(t, bytes.Equal(whole[at:at+one.RawSize()], decodeBy(t, b, part, one, level)), "heads %d at %d, level %d", heads, first, level)
			}
		}
		// A range of layers of the object.
		h, err := Parse(obj)
		require.NoError(t, err)
		var passes [][]byte
		for p := range h.passOf(level) + 1 {
			at, n := h.Range(p, 1, 3)
			passes = append(passes, obj[at:at+n])
		}
		out := make([]byte, 2*s.LayerSize())
		require.NoError(t, readerOf(t, b).DecodeLayers(out, h, s, passes, 1, 3, level))
		require.True(t, bytes.Equal(whole[s.LayerSize():], out))
	}
}

func TestCalibratedPlan(t *testing.T) {
	s := kvShape(1, 2, 70, 8, BF16)
	raw := kv(s, 5)
	b := basisFor(t, s, 2, 2)
	p := calibratedParams(s, b, 0, 3)
	exact := decodeBy(t, b, encode(t, raw, s, p), s, 0)
	coarse := decodeBy(t, b, encode(t, raw, s, p), s, 2)
	p.Plan = plan.Uniform(2, s.Tokens, 0).Set(s.Tokens, 1, 2, 10, 30, 2) // tokens 10..29 of V
	got := decodeBy(t, b, encode(t, raw, s, p), s, 0)
	for head := range 2 {
		for token := range s.Tokens {
			for field := range 2 {
				u := s.unit(field*2 + head)
				want := exact
				if field == 1 && token >= 10 && token < 30 {
					want = coarse
				}
				require.Equal(t, u.row(want, token), u.row(got, token), "head %d token %d field %d", head, token, field)
			}
		}
	}
}

// What has no coefficients is kept exactly, and what repeats costs a row.
func TestCalibratedUnitsThatAreExact(t *testing.T) {
	s := kvShape(2, 2, 80, 32, BF16)
	raw := kv(s, 6)
	set(s, raw, 1, 20, 3, 0x7fc0)     // K of head 1, layer 0
	set(s, raw, 4, 7, 2, bf16(65536)) // too large for the steps: layer 1
	u := s.unit(3)
	for k := range s.Tokens {
		copy(u.row(raw, k), u.row(raw, 0))
	}
	b := basisFor(t, s, 2, 1)
	obj := encode(t, raw, s, calibratedParams(s, b, 0, 3))
	h, err := Parse(obj)
	require.NoError(t, err)
	require.Equal(t, []uint8{basePlain, baseLossless, basePlain, baseRepeat, baseLossless, basePlain}, h.modes[:6])
	got := decodeBy(t, b, obj, s, 3)
	for _, i := range []int{1, 3, 4} {
		u := s.unit(i)
		for k := range s.Tokens {
			require.Equal(t, u.row(raw, k), u.row(got, k), "unit %d", i)
		}
	}
}

// A reader without the basis, or with another one, has a miss; a shape that a basis
// is not for is invalid.
func TestCalibratedMissAndMisuse(t *testing.T) {
	s := kvShape(2, 4, 66, 8, BF16)
	raw := kv(s, 7)
	b := basisFor(t, s, 4, 2)
	other := basisFor(t, kvShape(2, 4, 66, 8, BF16), 8, 2)
	p := calibratedParams(s, b, 0, 3)
	obj := encode(t, raw, s, p)
	out := make([]byte, s.RawSize())
	require.ErrorIs(t, NewReader(newCoder(t)).Decode(out, obj, s, 0), fault.Miss)
	require.ErrorIs(t, readerOf(t, other).Decode(out, obj, s, 0), fault.Miss)
	require.NoError(t, readerOf(t, other, b).Decode(out, obj, s, 0))
	bundle := basisFor(t, s, 4, 4)
	lying := NewReader(newCoder(t))
	lying.SetBases(func(basis.ID) *basis.Basis { return bundle })
	require.ErrorIs(t, lying.Decode(out, obj, s, 0), fault.Corrupt)

	e := NewEncoder(newCoder(t))
	for name, change := range map[string]func(*Shape, *Params){
		"no basis":          func(_ *Shape, p *Params) { p.Calibration.Basis = nil },
		"no calibration":    func(_ *Shape, p *Params) { p.Calibration = nil },
		"nothing to do":     func(_ *Shape, p *Params) { p.Fields[0].Mode, p.Fields[1].Mode = Plain, Raw },
		"scale":             func(_ *Shape, p *Params) { p.Calibration.Scale = 1e-9 },
		"layer":             func(s *Shape, _ *Params) { s.FirstLayer = 1 },
		"heads":             func(s *Shape, _ *Params) { s.Heads = 3 },
		"first head":        func(_ *Shape, p *Params) { p.Calibration.FirstHead = 1 },
		"beyond the last":   func(_ *Shape, p *Params) { p.Calibration.FirstHead = 2 },
		"position":          func(_ *Shape, p *Params) { p.Calibration.Position = 4096 - 65 },
		"negative position": func(_ *Shape, p *Params) { p.Calibration.Position = -1 },
		"dims":              func(s *Shape, _ *Params) { s.Fields = []Field{{K, BF16, 9}, {V, BF16, 8}} },
		"kind":              func(s *Shape, _ *Params) { s.Fields = []Field{{Rope, BF16, 8}, {V, BF16, 8}} },
	} {
		c, q := *s, calibratedParams(s, b, 0, 3)
		change(&c, q)
		dst, err := e.Encode([]byte{1}, raw, &c, q)
		require.ErrorIs(t, err, fault.Invalid, name)
		require.Equal(t, []byte{1}, dst)
	}
	// Some fields by the basis, some not.
	q := calibratedParams(s, b, 0, 3)
	q.Fields[0].Mode = Lossless
	got := decodeBy(t, b, encode(t, raw, s, q), s, 1)
	for i := range s.Units() {
		u := s.unit(i)
		require.Equal(t, u.field == 0, bytes.Equal(u.row(raw, 5), u.row(got, 5)))
	}
}

func TestCalibratedKernelsAgree(t *testing.T) {
	s := kvShape(1, 2, 100, 64, BF16)
	raw := kv(s, 8)
	b := basisFor(t, s, 2, 2)
	var object, decoded []byte
	for i, k := range rans.Kernels() {
		c, err := rans.New(rans.Options{Kernel: k})
		require.NoError(t, err)
		obj, err := NewEncoder(c).Encode(nil, raw, s, calibratedParams(s, b, 0, 3))
		require.NoError(t, err)
		r, out := NewReader(c), make([]byte, len(raw))
		r.SetBases(func(basis.ID) *basis.Basis { return b })
		require.NoError(t, r.Decode(out, obj, s, 1))
		if i == 0 {
			object, decoded = obj, out
		}
		require.True(t, bytes.Equal(object, obj), k)
		require.True(t, bytes.Equal(decoded, out), k)
	}
}
