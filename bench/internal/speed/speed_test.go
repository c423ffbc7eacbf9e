package speed

import (
	"testing"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// Every kernel codes the objects as the reference does; that is checked where
// they are made. All that is said to be coded is.
func TestWork(t *testing.T) {
	raw := [][]byte{kv(seed, 1)}
	require.Equal(t, raw[0], kv(seed, 1), "the same in every run")
	names := map[string]bool{}
	for i, k := range rans.Kernels() {
		for j := range variants {
			for _, r := range variants[j].rows(k, i > 0) {
				require.False(t, names[r.spec.Name], r.spec.Name)
				names[r.spec.Name] = true
			}
		}
		for j := range variants[:2] {
			w, err := newWork(k, &variants[j], shape(1), raw)
			require.NoError(t, err)
			require.Less(t, w.bits, 11.5, "it does not shrink")
			require.NoError(t, w.Encode(0))
			require.NoError(t, w.Decode(1)(0))
		}
	}
	for name := range bars {
		require.True(t, names[name], name)
	}
}

func TestCalibrated(t *testing.T) {
	for _, joined := range []int{1, heads} {
		c, err := newCalibrated(1, joined)
		require.NoError(t, err)
		w, err := c.work(1)
		require.NoError(t, err)
		require.Less(t, w.Size(), int64(len(c.raw)*len(c.raw[0])/4), "it does not shrink")
		require.NoError(t, w.Encode(1))
		require.NoError(t, w.Decode(calibratedLevel)(1))
	}
}

func TestZstd(t *testing.T) {
	raw := [][]byte{kv(seed, 1), kv(seed+1, 1)}
	g, err := newGeneral(raw)
	require.NoError(t, err)
	require.InDelta(t, 16, g.bits(), 2, "KV looks like noise to it")
	require.NoError(t, g.decode(1))
	require.Equal(t, raw[1], g.out[1])
	require.NoError(t, g.close())
}
