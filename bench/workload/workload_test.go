package workload

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

func TestNamespace(t *testing.T) {
	for _, s := range []Shape{{4096 << 10, 32, 1}, {1536 << 10, 24, 2}, {192 << 10, 12, 8}, {4 << 10, 1, 1}} {
		d, err := Namespace("x", s)
		require.NoError(t, err, "%v", s)
		parts := d.Parts()
		require.Len(t, parts, s.Parts)
		require.EqualValues(t, s.PartBytes, parts[0].RawLength)
		require.Len(t, parts[0].Layers, s.Layers)
		other, err := Namespace("y", s)
		require.NoError(t, err)
		require.NotEqual(t, d.Fingerprint(), other.Fingerprint())
	}
	_, err := Namespace("x", Shape{PartBytes: 5000, Layers: 1, Parts: 1})
	require.ErrorIs(t, err, fault.Invalid)
}

func TestPrompt(t *testing.T) {
	p, q := NewPrompt(1, 4), NewPrompt(2, 4)
	require.Equal(t, 4, p.Len())
	require.NotEqual(t, p.Key(0), q.Key(0))
	require.NotEqual(t, p.Key(0), p.Key(1))
	require.Equal(t, p.Root, p.Key(-1))
	tail := p.Slice(2, 4)
	require.Equal(t, p.Key(1), tail.Root)
	require.Equal(t, p.Key(3), tail.Key(1))
}

func TestFillCheck(t *testing.T) {
	p := NewPrompt(1, 2)
	for _, n := range []int{0, 1, 8, 13, 4096} {
		b := make([]byte, n)
		Fill(b, p.Key(0), 3)
		require.Equal(t, -1, Check(b, p.Key(0), 3))
		if n < 8 {
			continue
		}
		require.Equal(t, 0, Check(b, p.Key(1), 3))
		require.Equal(t, 0, Check(b, p.Key(0), 2))
		b[n-1] ^= 1
		require.GreaterOrEqual(t, Check(b, p.Key(0), 3), n-8)
	}
}
