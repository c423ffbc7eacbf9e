package nvme

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/part"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a folder on the disk that the repository is on: t.TempDir may be
// memory.
func disk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "testdata-") //nolint:usetesting // see above
	require.NoError(t, err)
	dir, err = filepath.Abs(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestPlaceRefuses(t *testing.T) {
	_, err := newPlace("/dev/shm", 0)
	require.ErrorContains(t, err, "is memory")
	_, err = newPlace(disk(t), 1<<62)
	require.ErrorContains(t, err, "are free")
}

func TestPlaceLeavesNothing(t *testing.T) {
	dir := disk(t)
	p, err := newPlace(dir, 0)
	require.NoError(t, err)
	_, err = p.sub("x")
	require.NoError(t, err)
	w, err := p.written()
	require.NoError(t, err)
	require.GreaterOrEqual(t, w.Process, int64(0))
	p.close()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCounters(t *testing.T) {
	n, err := processBytes([]byte("read_bytes: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n"))
	require.NoError(t, err)
	require.EqualValues(t, 4096, n)
	_, err = processBytes([]byte("read_bytes: 1\n"))
	require.Error(t, err)
	stats := []byte("   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 254       0 vda 5 1 2 9 3 4 10 6 0 7 8\n 254       1 vda1 5 1 2 9 3 4 20 6 0 7 8\n")
	require.EqualValues(t, 20*512, deviceBytes(stats, 254, 1))
	require.EqualValues(t, 10*512, deviceBytes(stats, 254, 0))
	require.Zero(t, deviceBytes(stats, 8, 0))
}

func TestSourceIsWhatItSays(t *testing.T) {
	s, err := newSource(size192k, 4*size192k.bytes)
	require.NoError(t, err)
	defer s.close()
	require.NotEqual(t, s.piece(0), s.piece(1))
	require.Equal(t, s.piece(1), s.piece(5), "pieces come again")
	for n := range 18 {
		d, err := s.descriptor(n)
		require.NoError(t, err)
		require.NoError(t, part.VerifySeal(d))
		require.NoError(t, part.Verify(d, s.piece(n)))
		if n%promptChunks != 0 {
			require.Equal(t, keyOf(n-1), d.Parent)
		}
		require.EqualValues(t, n%promptChunks, d.Ordinal)
	}
}

func TestParallel(t *testing.T) {
	var sum atomic.Int64
	require.NoError(t, parallel(t.Context(), 4, 100, func(i int) error { sum.Add(int64(i)); return nil }))
	require.EqualValues(t, 4950, sum.Load())
	bad := errors.New("bad")
	calls := atomic.Int64{}
	err := parallel(t.Context(), 2, 1<<30, func(i int) error {
		if calls.Add(1) == 10 {
			return bad
		}
		return nil
	})
	require.ErrorIs(t, err, bad)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, parallel(ctx, 2, 5, func(int) error { return nil }), context.Canceled)
}

// Plain files hold what was written, and as many of them as were asked for.
func TestRawKeepsTheNewest(t *testing.T) {
	src, err := newSource(size4096k, 2*size4096k.bytes)
	require.NoError(t, err)
	defer src.close()
	dir := disk(t)
	r := newRaw(dir, size4096k.bytes, 2*256<<20)
	defer r.close()
	r.per = 2 // files of two records
	require.Equal(t, 2, r.keep)
	require.NoError(t, r.write(t.Context(), 3, src.piece))
	require.NoError(t, r.write(t.Context(), 4, src.piece))
	got, err := newSlots(size4096k.bytes)
	require.NoError(t, err)
	defer got.close()
	require.NoError(t, got.with(func(slot []byte) error {
		for k := 4; k < 7; k++ {
			require.NoError(t, r.read(k, slot))
			require.True(t, bytes.Equal(slot, src.piece(k)), "record %d", k)
		}
		require.ErrorIs(t, r.read(3, slot), errGone)
		return nil
	}))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 2)
}

// What the tier's side writes is there, and is evicted when its time comes.
func TestOursStoresAndReads(t *testing.T) {
	src, err := newSource(size192k, 8*size192k.bytes)
	require.NoError(t, err)
	defer src.close()
	o, err := openOurs(t.Context(), disk(t), src, 8)
	require.NoError(t, err)
	defer func() { require.NoError(t, o.store.Close()) }()
	require.NoError(t, o.writeNew(t.Context(), 40))
	slots, err := newSlots(size192k.bytes)
	require.NoError(t, err)
	defer slots.close()
	b := &bench{src: src, ours: o}
	for k := range 40 {
		require.NoError(t, b.check(t.Context(), k, slots))
	}
	require.Error(t, b.check(t.Context(), 40, slots), "it was never written")
	st := o.store.Stats()
	require.EqualValues(t, 40, st.PutParts)
	require.EqualValues(t, 40, st.Hits)
}
