package coded

import (
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// eight is a namespace such as that of an 8B model: 32 layers, of which a head
// of 256 tokens is 4 MiB.
func eight() *namespace.Descriptor {
	d := small()
	layers := make([]uint32, 32)
	for i := range layers {
		layers[i] = uint32(i)
	}
	d.ChunkTokens = 256
	d.Groups = []namespace.Group{{Kind: namespace.KindFull, Layers: layers, KVHeads: 1, Dk: 128, Dv: 128, TokensPerEntry: 1, HeadGroup: 1}}
	return d
}

// BenchmarkTier is a part of 4 MiB on its way through the stage, everything
// included but the tier below.
func BenchmarkTier(b *testing.B) {
	d := eight()
	layout := layoutOf(d)
	raw := make([]byte, layout.Bytes())
	kv(rand.NewChaCha8([32]byte{1}), raw)
	descriptor, err := tiertest.Raw(part.Descriptor{}, layout[0], raw)
	if err != nil {
		b.Fatal(err)
	}
	list := []storage.PartBytes{{Part: descriptor, Bytes: raw}}
	for mode := Lossless; mode <= L3; mode++ {
		tier := newPool(b, Options{Workers: 1}).Stage(d, layout, mode).Over(newMemory())
		b.Run("put/"+mode.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tier.PutParts(b.Context(), list); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("get/"+mode.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var got part.Descriptor
			dst := make([]byte, len(raw))
			for b.Loop() {
				if _, err := tier.Get(b.Context(), descriptor.ID, &got, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
