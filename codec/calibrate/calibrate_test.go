package calibrate

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
)

const dims = 16

var turn = []float64{1, .3, .1, .03}

// recorded is KV in which a few hidden numbers of a token make all heads, and the
// position turns the first 8 dims of keys.
func recorded(s *codec.Shape, position int, seed uint64) []byte {
	g := rand.New(rand.NewPCG(9, 9))
	const hidden = 5
	mix := make([]float64, s.Layers*2*s.Heads*dims*hidden)
	for i := range mix {
		mix[i] = g.NormFloat64() * math.Exp(-float64(i%hidden)/2)
	}
	g = rand.New(rand.NewPCG(seed, 1))
	raw := make([]byte, s.RawSize())
	for token := range s.Tokens {
		var h [hidden]float64
		for i := range h {
			h[i] = g.NormFloat64()
		}
		for layer := range s.Layers {
			for head := range s.Heads {
				row := raw[((layer*s.Heads+head)*s.Tokens+token)*s.RowSize():]
				for field := range 2 {
					var v [dims]float64
					for d := range v {
						v[d] = 1 + .02*g.NormFloat64()
						for i := range h {
							v[d] += mix[(((layer*2+field)*s.Heads+head)*dims+d)*hidden+i] * h[i]
						}
					}
					for i := range turn {
						if sin, cos := math.Sincos(float64(position+token) * turn[i]); field == 0 {
							x, y := v[i], v[i+4]
							v[i], v[i+4] = x*cos-y*sin, y*cos+x*sin
						}
					}
					for d := range v {
						binary.LittleEndian.PutUint16(row[2*(field*dims+d):], uint16((math.Float32bits(float32(v[d]))+0x8000)>>16))
					}
				}
			}
		}
	}
	return raw
}

func shape() *codec.Shape {
	return &codec.Shape{Layers: 2, Heads: 4, Tokens: 128, Fields: []codec.Field{{Kind: codec.K, DType: codec.BF16, Dims: dims}, {Kind: codec.V, DType: codec.BF16, Dims: dims}}}
}

func options(u basis.Unit, joined int) Options {
	return Options{Turn: turn, Steps: []float32{.06, .1}, Sinks: 1, Shape: basis.Shape{
		Unit: u, Layers: 2, Heads: 4, Joined: joined, Fields: []basis.Field{{Kind: 1, Dims: dims}, {Kind: 2, Dims: dims}},
		Rope: basis.Rope{Pairing: basis.Halves, Dims: 8, Positions: 2048},
	}}
}

func learn(t *testing.T, o Options) []byte {
	t.Helper()
	l, err := New(o)
	require.NoError(t, err)
	require.Positive(t, l.Memory())
	s := shape()
	for i := range 12 {
		require.NoError(t, l.Add(recorded(s, i*128, uint64(i)), s, i*128))
	}
	require.Equal(t, 12*128-1, l.Tokens(), "but for the sink")
	calls := 0
	b, err := l.Basis(nil, func(done, all int) {
		calls++
		require.Equal(t, calls, done)
		require.Equal(t, 2*2*o.Shape.Blocks(), all)
	})
	require.NoError(t, err)
	require.Equal(t, 2*2*o.Shape.Blocks(), calls)
	return b
}

// What was not learned from is coded in far fewer bytes than plain at the same
// step, the more the more heads are joined; and the same input gives the same
// basis.
func TestABasisShrinksWhatIsLikeIt(t *testing.T) {
	s := shape()
	raw := recorded(s, 640, 1000)
	coder, err := rans.New(rans.Options{})
	require.NoError(t, err)
	plain := codec.Params{Coarsest: 3, Fields: []codec.FieldParams{{Mode: codec.Plain, Steps: []float32{.06}}, {Mode: codec.Plain, Steps: []float32{.1}}}}
	object, err := codec.NewEncoder(coder).Encode(nil, raw, s, &plain)
	require.NoError(t, err)
	before := len(object)
	for _, c := range []struct {
		u      basis.Unit
		joined int
	}{{basis.Part, 1}, {basis.Part, 2}, {basis.Bundle, 4}} {
		bytesOf := learn(t, options(c.u, c.joined))
		require.True(t, bytes.Equal(bytesOf, learn(t, options(c.u, c.joined))))
		b, err := basis.Parse(bytesOf)
		require.NoError(t, err)
		p := codec.Params{Coarsest: 3, Fields: []codec.FieldParams{{Mode: codec.Calibrated}, {Mode: codec.Calibrated}},
			Calibration: &codec.Calibration{Basis: b, Position: 640}}
		object, err := codec.NewEncoder(coder).Encode(nil, raw, s, &p)
		require.NoError(t, err)
		require.Less(t, float64(len(object)), .85*float64(before), "%v of %d heads", c.u, c.joined)
		before = len(object)
		out := make([]byte, len(raw))
		r := codec.NewReader(coder)
		r.SetBases(func(basis.ID) *basis.Basis { return b })
		require.NoError(t, r.Decode(out, object, s, 0))
		sum, power := 0., 0.
		for i := 0; i < len(raw); i += 2 {
			x := float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[i:])) << 16))
			y := float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(out[i:])) << 16))
			sum, power = sum+(x-y)*(x-y), power+x*x
		}
		require.Less(t, sum, .0015*power)
		// Turned at another position it is no longer like what was learned: more
		// bytes, not a worse result.
		p.Calibration.Position = 11
		object, err = codec.NewEncoder(coder).Encode(nil, raw, s, &p)
		require.NoError(t, err)
		require.Greater(t, float64(len(object)), 1.05*float64(before))
		require.NoError(t, r.Decode(out, object, s, 0))
		sum = 0
		for i := 0; i < len(raw); i += 2 {
			x := float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[i:])) << 16))
			y := float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(out[i:])) << 16))
			sum += (x - y) * (x - y)
		}
		require.Less(t, sum, .0015*power)
	}
}

func TestMisuse(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"steps":     func(o *Options) { o.Steps = o.Steps[1:] },
		"step":      func(o *Options) { o.Steps = []float32{0, 1} },
		"no angles": func(o *Options) { o.Turn = nil },
		"shape":     func(o *Options) { o.Shape.Layers = 0 },
	} {
		o := options(basis.Part, 1)
		change(&o)
		_, err := New(o)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
	l, err := New(options(basis.Part, 1))
	require.NoError(t, err)
	s := shape()
	raw := recorded(s, 0, 1)
	_, err = l.Basis(nil, nil)
	require.ErrorIs(t, err, fault.Invalid, "nothing was learned")
	other := shape()
	other.Heads = 3
	require.ErrorIs(t, l.Add(raw, other, 0), fault.Invalid)
	other = shape()
	other.Fields[1].Dims = 8
	require.ErrorIs(t, l.Add(raw, other, 0), fault.Invalid)
	require.ErrorIs(t, l.Add(raw[1:], s, 0), fault.Invalid)
	require.ErrorIs(t, l.Add(raw, s, 2048-127), fault.Invalid)
	raw[11] = 0x7f
	raw[10] = 0xc0
	require.ErrorIs(t, l.Add(raw, s, 0), fault.Invalid, "NaN")
	require.Zero(t, l.Tokens())
}

func TestRope(t *testing.T) {
	read := func(config string) *Rope {
		r, err := ParseRope([]byte(config))
		require.NoError(t, err)
		return r
	}
	r := read(`{"head_dim": 8, "rope_theta": 10000, "max_position_embeddings": 4096}`)
	require.Equal(t, 4096, r.Positions)
	require.InDeltaSlice(t, []float64{1, .1, .01, .001}, r.Turn, 1e-12)
	r = read(`{"hidden_size": 32, "num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5}}`)
	require.InDeltaSlice(t, []float64{1, .1, .01, .001}, r.Turn, 1e-12)
	r = read(`{"head_dim": 4, "rope_theta": 10000, "rope_scaling": {"type": "linear", "factor": 4}}`)
	require.InDeltaSlice(t, []float64{.25, .0025}, r.Turn, 1e-12)
	// Llama 3.1: fast turns stay, slow ones are 8 times slower, some are between.
	r = read(`{"head_dim": 128, "rope_theta": 500000, "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}}`)
	require.InDelta(t, 1, r.Turn[0], 0)
	require.InDelta(t, math.Pow(500000, -126./128)/8, r.Turn[63], 1e-12)
	between := 0
	for i, a := range r.Turn {
		full := math.Pow(500000, -float64(2*i)/128)
		require.True(t, a <= full && a >= full/8*(1-1e-12))
		if a < full && a > full/8*(1+1e-9) {
			between++
		}
	}
	require.InDelta(t, 7, between, 3)
	for _, config := range []string{
		`{`, `{}`, `{"head_dim": 8}`, `{"head_dim": 7, "rope_theta": 10000}`,
		`{"head_dim": 8, "rope_theta": 10000, "rope_scaling": {"rope_type": "yarn", "factor": 4}}`,
		`{"head_dim": 8, "rope_theta": 10000, "rope_scaling": {"rope_type": "linear"}}`,
		`{"head_dim": 8, "rope_parameters": {"full_attention": {"rope_theta": 10000}}}`,
	} {
		_, err := ParseRope([]byte(config))
		require.ErrorIs(t, err, fault.Invalid, config)
	}
}
