package coding_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// Parts of different sizes, one after another, whichever measurement they fall into.
func TestWork(t *testing.T) {
	for _, way := range []coding.Way{{Mode: codec.Lossless}, {Mode: codec.Plain, Coarsest: codec.L3}} {
		var parts []coding.Part
		for _, tokens := range []int{64, 7, 1} {
			s := &codec.Shape{Layers: 1, Heads: 2, Tokens: tokens, Fields: []codec.Field{{Kind: codec.K, DType: codec.BF16, Dims: 16}, {Kind: codec.Opaque, DType: codec.U8, Dims: 4}}}
			raw := make([]byte, s.RawSize())
			for i := 0; i+1 < len(raw); i += 2 {
				binary.LittleEndian.PutUint16(raw[i:], uint16(math.Float32bits(float32(math.Sin(float64(i*i))))>>16))
			}
			parts = append(parts, coding.Part{Shape: s, Params: way.Params(s), Raw: raw})
		}
		w, err := coding.New(rans.Auto, parts, nil)
		require.NoError(t, err)
		require.NotEqual(t, rans.Auto, w.Kernel())
		sum := int64(0)
		for i, object := range w.Objects() {
			sum += int64(len(object))
			require.NoError(t, w.Decode(way.Coarsest)(i))
			require.Len(t, w.Decoded(i), len(parts[i].Raw))
			if way.Mode == codec.Lossless {
				require.Equal(t, parts[i].Raw, w.Decoded(i))
			}
		}
		require.Equal(t, sum, w.Size())
		var seen []int
		for k := range 4 {
			n, _, err := w.Measure(func(i int) error { seen = append(seen, i); return w.Encode(i) }, 0)
			require.NoError(t, err)
			require.Equal(t, int64(len(parts[k%3].Raw)), n)
		}
		require.Equal(t, []int{0, 1, 2, 0}, seen)
	}
}
