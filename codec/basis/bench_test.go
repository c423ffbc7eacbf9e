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
	c, row := make([]float32, 4*256), make([]float32, 4*256)
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
	b.Run("project 4", func(b *testing.B) {
		b.SetBytes(4 * 256 * 256)
		for b.Loop() {
			t.Project(row, c)
		}
	})
}
