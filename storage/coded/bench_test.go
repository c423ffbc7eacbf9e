package coded

import (
	"math/rand/v2"
	"os"
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
		benchStage(b, mode.String(), newPool(b, Options{Workers: 1}).Stage(d, layout, mode), list)
	}
}

// benchStage puts parts through a stage, and gets the first of them.
func benchStage(b *testing.B, name string, stage *Stage, list []storage.PartBytes) {
	under := newMemory()
	tier, raw, stored := stage.Over(under), len(list[0].Bytes), 0
	b.Run("put/"+name, func(b *testing.B) {
		b.SetBytes(int64(raw * len(list)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tier.PutParts(b.Context(), list); err != nil {
				b.Fatal(err)
			}
		}
		stored = len(under.parts[list[0].Part.ID].Bytes)
		b.ReportMetric(float64(stored)/float64(raw), "stored/raw")
	})
	b.Run("get/"+name, func(b *testing.B) {
		b.SetBytes(int64(raw))
		b.ReportAllocs()
		var got part.Descriptor
		dst := make([]byte, raw)
		for b.Loop() {
			if _, err := tier.Get(b.Context(), list[0].Part.ID, &got, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpaque is the same of opaque layouts. LARDER_KV names a file of real pages,
// as large as a part, in place of synthetic bfloat16.
func BenchmarkOpaque(b *testing.B) {
	for _, dtype := range []string{"bfloat16", "uint8"} {
		d := eight()
		asBlocks(d, 16*512)
		d.KVDtype = dtype
		layout := layoutOf(d)
		raw := make([]byte, layout.Bytes())
		kv(rand.NewChaCha8([32]byte{1}), raw)
		if name := os.Getenv("LARDER_KV"); name != "" {
			real, err := os.ReadFile(name)
			if err != nil || copy(raw, real) < len(raw) {
				b.Fatalf("%s: %v, or not %d bytes", name, err, len(raw))
			}
		}
		descriptor, err := tiertest.Raw(part.Descriptor{}, layout[0], raw)
		if err != nil {
			b.Fatal(err)
		}
		benchStage(b, dtype, newPool(b, Options{Workers: 1}).Stage(d, layout, Lossless), []storage.PartBytes{{Part: descriptor, Bytes: raw}})
	}
}
