package rans_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// guarded decodes with a byte of sentinel on both sides of dst, and src without
// capacity beyond its length, and returns the error.
func guarded(t testing.TB, c *rans.Coder, n int, runs []rans.Run, stream []byte) ([]byte, error) {
	t.Helper()
	buf := bytes.Repeat([]byte{0xa5}, n+128)
	err := c.DecodeStream(buf[64:64+n:64+n], runs, stream[:len(stream):len(stream)])
	for i := range 64 {
		if buf[i] != 0xa5 || buf[64+n+i] != 0xa5 {
			t.Fatalf("%v: wrote outside of dst", c.Kernel())
		}
	}
	return buf[64 : 64+n], err
}

// A stream that is cut anywhere, or goes on, is corrupt.
func TestTruncated(t *testing.T) {
	for _, n := range []int{1, 64, 100, 640, 1000} {
		src := gauss(rand.New(rand.NewPCG(9, uint64(n))), n, 2, 32, 9)
		runs := one(t, src)
		stream, err := coder(t, rans.Go).EncodeStream(nil, runs, src)
		require.NoError(t, err)
		for _, c := range coders(t) {
			for cut := range len(stream) {
				_, err := guarded(t, c, n, runs, stream[:cut])
				require.ErrorIs(t, err, fault.Corrupt, "%v: %d of %d", c.Kernel(), cut, len(stream))
			}
			_, err = guarded(t, c, n, runs, append(bytes.Clone(stream), 0))
			require.ErrorIs(t, err, fault.Corrupt, c.Kernel())
			_, err = guarded(t, c, n, runs, append(bytes.Clone(stream), make([]byte, 100)...))
			require.ErrorIs(t, err, fault.Corrupt, c.Kernel())
		}
	}
}

// Most bit flips are found: a lane that goes astray does not come home to 256
// just when the bytes are used up, but for about one flip in a hundred in a
// stream as short as this. The rest is what the container's checksums are for;
// all kernels agree about every flip.
func TestFlipped(t *testing.T) {
	const n = 700
	src := gauss(rand.New(rand.NewPCG(11, 12)), n, 2, 32, 9)
	runs := one(t, src)
	stream, err := coder(t, rans.Go).EncodeStream(nil, runs, src)
	require.NoError(t, err)
	missed := 0
	for bit := range 8 * len(stream) {
		bad := bytes.Clone(stream)
		bad[bit/8] ^= 1 << (bit % 8)
		want, wantErr := guarded(t, coder(t, rans.Go), n, runs, bad)
		if wantErr == nil {
			missed++
		} else {
			require.ErrorIs(t, wantErr, fault.Corrupt)
		}
		for _, c := range coders(t) {
			got, err := guarded(t, c, n, runs, bad)
			require.Equal(t, wantErr == nil, err == nil, "%v: bit %d", c.Kernel(), bit)
			if wantErr == nil {
				require.Equal(t, want, got, "%v: bit %d", c.Kernel(), bit)
			}
		}
	}
	t.Logf("%d of %d flips decode to something", missed, 8*len(stream))
	require.Less(t, missed, 8*len(stream)/40)
}

// Bytes without meaning, up to what the symbols can take at most.
func TestNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	src := gauss(rng, 2000, 6, 32, 31)
	runs := []rans.Run{
		{Table: table(t, src), Steps: 3},
		{Table: table(t, []byte{1}), Steps: 5},
		{Table: table(t, gauss(rng, 500, 30, 128, 127)), Steps: 4},
		{Table: table(t, src[:30]), Steps: 7},
	}
	for n := 18*64 + 1; n <= 19*64; n += 9 {
		for range 50 {
			stream := make([]byte, rans.StateSize+rng.IntN(1500))
			for i := range stream {
				stream[i] = byte(rng.Uint32())
				if i < rans.StateSize && i%2 == 1 {
					stream[i] |= 1
				}
			}
			_, wantErr := guarded(t, coder(t, rans.Go), n, runs, stream)
			for _, c := range coders(t) {
				_, err := guarded(t, c, n, runs, stream)
				require.Equal(t, wantErr == nil, err == nil, c.Kernel())
			}
		}
	}
}
