package entropy

import (
	"testing"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

func TestHeads(t *testing.T) {
	all, bits, err := Heads(seed)
	require.NoError(t, err)
	require.Len(t, all, heads)
	require.Greater(t, bits, 2.0)
	require.Less(t, bits, 3.0)
	again, _, err := Heads(seed)
	require.NoError(t, err)
	require.Equal(t, all[heads-1].Symbols, again[heads-1].Symbols)
}

// Both sides code the same heads, and bring them back; that is checked where
// they are made.
func TestCodings(t *testing.T) {
	all, bits, err := Heads(seed)
	require.NoError(t, err)
	huff, err := huffCoding(all)
	require.NoError(t, err)
	for _, k := range rans.Kernels() {
		ours, err := ransCoding(k, all)
		require.NoError(t, err)
		require.InEpsilon(t, bits*symbols/8, ours.size, 0.03)
		require.Less(t, ours.size, huff.size)
		require.NoError(t, ours.encode(heads-1))
	}
}

func BenchmarkDecode(b *testing.B) { benchmark(b, func(c *coding) func(int) error { return c.decode }) }
func BenchmarkPair(b *testing.B)   { benchmark(b, func(c *coding) func(int) error { return c.pair }) }
func BenchmarkEncodePair(b *testing.B) {
	benchmark(b, func(c *coding) func(int) error { return c.encodePair })
}
func BenchmarkEncode(b *testing.B) { benchmark(b, func(c *coding) func(int) error { return c.encode }) }

func benchmark(b *testing.B, pick func(*coding) func(int) error) {
	all, _, err := Heads(seed)
	require.NoError(b, err)
	huff, err := huffCoding(all)
	require.NoError(b, err)
	cs := []*coding{huff}
	for _, k := range rans.Kernels() {
		ours, err := ransCoding(k, all)
		require.NoError(b, err)
		cs = append(cs, ours)
	}
	for _, c := range cs {
		f := pick(c)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(symbols)
			h := 0
			for b.Loop() {
				if err := f(h); err != nil {
					b.Fatal(err)
				}
				h = (h + 1) % heads
			}
		})
	}
}
