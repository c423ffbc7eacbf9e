package speed

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/larderkv/larder/codec"
)

const (
	layers, heads, tokens, dims = 16, 2, 256, 128
	objects                     = 4

	// seed of the KV: the same in every run.
	seed = 20261125
)

func shape(layers int) *codec.Shape {
	return &codec.Shape{Layers: layers, Heads: heads, Tokens: tokens, Fields: []codec.Field{
		{Kind: codec.K, DType: codec.BF16, Dims: dims}, {Kind: codec.V, DType: codec.BF16, Dims: dims},
	}}
}

// kv returns the uncoded bytes of one object.
func kv(seed uint64, layers int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	return kvOf(rng, rng, layers)
}

// kvOf does that with channels and their elements from two sources: objects with the
// same channels are as from one model.
func kvOf(channels, rng *rand.Rand, layers int) []byte {
	s := shape(layers)
	raw := make([]byte, s.RawSize())
	for head := range layers * heads {
		rows := raw[head*tokens*s.RowSize():]
		fill(channels, rng, rows, s.RowSize(), 2, 0.7)
		fill(channels, rng, rows[2*dims:], s.RowSize(), 0.1, 0.3)
	}
	return raw
}

// fill writes one field of one head: channels whose means are far apart, and
// whose widths are spread by so many powers of e.
func fill(channels, rng *rand.Rand, rows []byte, stride int, far, spread float64) {
	for c := range dims {
		mean, width := channels.NormFloat64()*far, math.Exp(channels.NormFloat64()*spread)
		for t := range tokens {
			x := rng.NormFloat64()
			if c%2 == 1 {
				x = rng.ExpFloat64() / math.Sqrt2
				if rng.Uint32()&1 == 0 {
					x = -x
				}
			}
			b := math.Float32bits(float32(mean + x*width))
			b += 0x7fff + b>>16&1
			binary.LittleEndian.PutUint16(rows[t*stride+2*c:], uint16(b>>16))
		}
	}
}
