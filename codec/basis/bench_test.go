package basis

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Reconstruction of one token of 256 components, none of which is 0, and its
// projection.
func BenchmarkTransform(b *testing.B) {
	s := &Shape{Unit: Part, Layers: 1, Heads: 2, Joined: 2, Fields: []Field{{1, 1, 128}}}
	got, err := Parse(newBytes(b, s, 1))
	require.NoError(b, err)
	t := got.Transform(0, 0, 0)
	g := rand.New(rand.NewPCG(1, 1))
	c, row := make([]float32, 16*256), make([]float32, 16*256)
	for i := range c {
		c[i] = float32(g.NormFloat64())
	}
	b.Run("reconstruct", func(b *testing.B) {
		b.SetBytes(256 * 256)
		for b.Loop() {
			t.Reconstruct(row[:256], c[:256])
		}
	})
	b.Run("reconstruct go", func(b *testing.B) {
		b.SetBytes(256 * 256)
		for b.Loop() {
			t.reconstruct(row[:256], c[:256], false)
		}
	})
	var work []float32
	for _, p := range []struct {
		name         string
		wide, widest bool
	}{{"project 16", hasFMA(), hasAVX512()}, {"project 16 avx2", hasFMA(), false}, {"project 16 go", false, false}} {
		b.Run(p.name, func(b *testing.B) {
			b.SetBytes(16 * 256 * 256)
			for b.Loop() {
				t.project(row, c, &work, p.wide, p.widest)
			}
		})
	}
}
