package coded

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
)

// What the disk does with parts it does with slices: pin, unpin, check, and find
// them without an index.
func TestBundlesOnDisk(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	dir := t.TempDir()
	b := learn(t, d, basis.Bundle)
	open := func(mode Mode) (*nvme.Store, *nvme.Tier, *Tier) {
		s, _, err := nvme.Open(t.Context(), dir, smallOptions())
		require.NoError(t, err)
		under, err := s.Tier(scopeOf(0), layout)
		require.NoError(t, err)
		return s, under, newPool(t, Options{Bases: bases{b}}).Stage(d, layout, mode).Over(under)
	}
	s, under, tier := open(CalibratedL2)
	chunks := map[keys.Key][]storage.PartBytes{}
	for n := byte(1); n <= 4; n++ {
		list := recordedChunk(t, d, n, 0)
		_, err := tier.PutParts(t.Context(), list)
		require.NoError(t, err)
		chunks[list[0].Part.ID.Chunk] = list
	}
	read := func() {
		t.Helper()
		for _, list := range chunks {
			for span := range 2 {
				raw, ds, err := getAll(t, tier, list[4*span:], all)
				require.NoError(t, err)
				for i := range raw {
					require.Equal(t, L2.Quality(), ds[i].Quality)
					require.Less(t, difference(list[4*span+i].Bytes, raw[i]), .36)
				}
			}
		}
	}
	read()
	one := []keys.Key{{1}}
	moved, err := under.Pin(t.Context(), one)
	require.NoError(t, err)
	require.Equal(t, 1, moved.Chunks)
	read()
	_, err = under.Unpin(t.Context(), one)
	require.NoError(t, err)
	read()
	require.NoError(t, s.Close())
	_, err = nvme.Check(t.Context(), dir, segment.Visitor{Problem: func(p segment.Problem) { t.Errorf("%+v", p) }})
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
	s, under, tier = open(Raw)
	read()
	// A byte of one slice: the chunk is gone, all others are there.
	id := chunks[keys.Key{2}][5].Part.ID
	stored := make([]byte, layout[0].RawLength)
	var pd part.Descriptor
	n, err := under.Get(t.Context(), id, &pd, stored)
	require.NoError(t, err)
	require.True(t, pd.Bundled())
	found := 0
	names, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	require.NoError(t, err)
	for _, name := range names {
		found += damageAny(t, name, stored[:n])
	}
	require.Positive(t, found)
	_, _, err = getAll(t, tier, chunks[keys.Key{2}][4:], all)
	require.ErrorIs(t, err, fault.Corrupt)
	require.False(t, tier.Has(keys.Key{2}, 255))
	delete(chunks, keys.Key{2})
	read()
	require.NoError(t, s.Close())
}

// damageAny changes every copy of the bytes in a file, wherever they begin.
func damageAny(t testing.TB, name string, want []byte) (found int) {
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], want)
		if i < 0 {
			return found
		}
		at += i
		found++
		_, err := f.WriteAt([]byte{want[len(want)/2] ^ 4}, int64(at+len(want)/2))
		require.NoError(t, err)
	}
}
