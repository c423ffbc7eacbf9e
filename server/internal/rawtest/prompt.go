package rawtest

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
)

// The namespace of tests: 64 tokens a chunk; two parts of 64 KiB, one for each
// KV head, with two layers.
const (
	Parts       = 2
	PartBytes   = 2 * ChunkTokens * 256 * 2
	ChunkTokens = 64
)

// Namespace is the namespace of tests.
func Namespace() *namespace.Descriptor {
	return &namespace.Descriptor{
		WeightsID: [32]byte{1}, KVDtype: "bfloat16", Quantization: namespace.QuantizationNone,
		Groups: []namespace.Group{{
			Kind: namespace.KindFull, Layers: []uint32{0, 1}, KVHeads: 2, Dk: 128, Dv: 128,
			TokensPerEntry: 1, HeadGroup: 1,
		}},
		ChunkTokens: ChunkTokens, Spans: []uint32{0},
		Layout: namespace.Layout{Name: namespace.LayoutCanonical},
	}
}

// Prompt is a chain of chunks.
type Prompt struct {
	Root   keys.Key
	Keys   []keys.Key
	Tokens []uint32
}

// NewPrompt makes a prompt of n chunks; other seeds share nothing with it.
func NewPrompt(t testing.TB, tenantKey []byte, seed uint32, n int) Prompt {
	root, err := keys.Root(Namespace().Fingerprint(), [32]byte(tenantKey), nil, keys.RootExtras{})
	require.NoError(t, err)
	return ChainOn(t, root, seed, n)
}

// ChainOn is NewPrompt under another root.
func ChainOn(t testing.TB, root keys.Key, seed uint32, n int) Prompt {
	chain, err := keys.NewChain(root, ChunkTokens, nil)
	require.NoError(t, err)
	tokens := make([]uint32, n*ChunkTokens)
	for i := range tokens {
		tokens[i] = seed<<16 + uint32(i)
	}
	list, err := chain.Append(nil, tokens)
	require.NoError(t, err)
	return Prompt{root, list, tokens}
}

// Parent is the key before chunk i.
func (p Prompt) Parent(i int) keys.Key {
	if i == 0 {
		return p.Root
	}
	return p.Keys[i-1]
}

// Content is what a part of a chunk holds: bytes that no other part has.
func Content(key keys.Key, part int) []byte {
	b := make([]byte, PartBytes)
	for i := 0; i < len(b); i += sha256.Size {
		h := sha256.Sum256(binary.LittleEndian.AppendUint32(append(key[:], byte(part)), uint32(i)))
		copy(b[i:], h[:])
	}
	return b
}

// KV is Content that a codec can do something with: bfloat16 numbers, each
// channel of its own size.
func KV(key keys.Key, part int) []byte {
	seed := [32]byte(key)
	seed[0] ^= byte(part)
	g := rand.New(rand.NewChaCha8(seed))
	var scale [256]float64 // K and V of a token
	for i := range scale {
		scale[i] = math.Exp2(g.NormFloat64())
	}
	b := make([]byte, 0, PartBytes)
	for i := range PartBytes / 2 {
		v := math.Float32bits(float32(g.NormFloat64() * scale[i%len(scale)]))
		b = binary.LittleEndian.AppendUint16(b, uint16(v>>16))
	}
	return b
}
