package rows_test

import (
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/codec/rows"
)

// BenchmarkOps: one head of 256 tokens and 128 channels, two bytes for each
// element whatever the function moves.
func BenchmarkOps(b *testing.B) {
	const dims, tokens, n = 128, 256, 128 * 256
	rng := rand.New(rand.NewPCG(1, 2))
	classOf, class2 := make([]uint8, dims), make([]byte, dims)
	for i := range classOf {
		classOf[i] = uint8(rng.IntN(8))
		class2[i] = 2 * classOf[i]
	}
	var m rows.ClassMap
	m.Build(classOf, 8)
	raw := bf16s(rng, 4*dims, tokens, dims, false)
	q, digits, ctx := make([]int16, n), make([]byte, n), make([]byte, n)
	symbols, arranged := make([]byte, n), make([]byte, m.Size(tokens))
	mean, sq := make([]float32, dims), make([]float32, dims)
	var hist [256]uint32
	few := make([]byte, n) // 16 different symbols
	for i := range few {
		few[i] = byte(24 + rng.IntN(16))
	}
	for i := range digits {
		digits[i] = byte(rng.IntN(3))
	}
	for _, o := range all() {
		name := "/" + o.Name()
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"scatter", func() { o.Scatter(symbols, arranged, &m, tokens) }},
			{"values", func() { o.Values(q, symbols, 31) }},
			{"contexts", func() { o.Contexts(ctx, q, class2) }},
			{"merge", func() { clear(q); o.Merge(q, digits) }},
			{"reconstruct", func() { o.ReconstructBF16(raw, 4*dims, tokens, q, mean, 0.125) }},
			{"reconstruct symbols", func() { o.ReconstructSymbolsBF16(raw, 4*dims, tokens, symbols, 31, mean, 0.125) }},
			{"stats", func() { o.StatsBF16(mean, sq, raw, 4*dims, tokens) }},
			{"quantize", func() { o.QuantizeBF16(q, raw, 4*dims, tokens, mean, 0.01, 32767) }},
			{"split", func() { o.Split(q, symbols, ctx, class2) }},
			{"symbols", func() { o.Symbols(symbols, q) }},
			{"gather", func() { o.Gather(arranged, symbols, &m, tokens) }},
			{"count", func() { o.Count(&hist, few) }},
		} {
			b.Run(f.name+name, func(b *testing.B) {
				b.SetBytes(2 * n)
				for b.Loop() {
					f.run()
				}
			})
		}
	}
}
