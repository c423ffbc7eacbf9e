package workload

import (
	"crypto/sha256"
	"fmt"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/namespace"
)

// ChunkTokens of every namespace made here.
const ChunkTokens = 256

// Shape is how a chunk is cut into parts.
type Shape struct {
	// PartBytes of each part: layers x 1 KiB x an even number.
	PartBytes int
	// Layers in each part.
	Layers int
	// Parts of each chunk (head groups of one KV head).
	Parts int
}

// String returns "4096k x 1" for logs.
func (s Shape) String() string { return fmt.Sprintf("%dk x %d", s.PartBytes>>10, s.Parts) }

// Namespace returns a valid namespace of that shape. Different names never
// share anything.
func Namespace(name string, s Shape) (*namespace.Descriptor, error) {
	unit := s.Layers * ChunkTokens * 2 // bytes of one bfloat16 element a token
	if s.Layers < 1 || s.Parts < 1 || s.PartBytes < 2*unit || s.PartBytes%(2*unit) != 0 {
		return nil, fault.New(fault.Invalid, "shape", "the part does not divide into layers of equal K and V").With(s, 2*unit)
	}
	layers := make([]uint32, s.Layers)
	for i := range layers {
		layers[i] = uint32(i)
	}
	dim := uint32(s.PartBytes / unit / 2)
	d := &namespace.Descriptor{
		WeightsID:    sha256.Sum256([]byte("synthetic/" + name)),
		Config:       []namespace.ConfigField{{Name: "synthetic", Value: name}},
		KVDtype:      "bfloat16",
		Quantization: namespace.QuantizationNone,
		Groups: []namespace.Group{{
			Kind: namespace.KindFull, Layers: layers, KVHeads: uint32(s.Parts), Dk: dim, Dv: dim, TokensPerEntry: 1, HeadGroup: 1,
		}},
		ChunkTokens: ChunkTokens,
		Spans:       []uint32{0},
		Layout:      namespace.Layout{Name: namespace.LayoutCanonical},
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return d, nil
}
