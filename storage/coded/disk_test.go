package coded

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
)

// What the disk does with parts by itself it does with coded ones too: pin and
// unpin, check, and find them without an index.
func TestDisk(t *testing.T) {
	for _, mode := range []Mode{Lossless, L2} {
		dir, d := t.TempDir(), small()
		layout := layoutOf(d)
		s := open(t, dir, d, mode)
		chunks := map[keys.Key][][]byte{}
		for n := byte(1); n <= 4; n++ {
			list := chunkOf(t, n, layout, 0)
			_, err := s.stage.Over(s.under(0)).PutParts(t.Context(), list)
			require.NoError(t, err)
			chunks[list[0].Part.ID.Chunk] = nil
		}
		read := func(remember bool) {
			for key := range chunks {
				for i, p := range layout {
					got, b, err := get(t, s.Tier(0), part.ID{Chunk: key, Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup}, int(p.RawLength))
					require.NoError(t, err)
					require.Equal(t, mode.Quality(), got.Quality)
					if remember {
						chunks[key] = append(chunks[key], b)
					}
					require.Equal(t, chunks[key][i], b)
				}
			}
		}
		read(true)
		st := s.store.Stats()
		require.Less(t, st.UserBytes, 4*layout.Bytes())
		one := []keys.Key{{1}}
		moved, err := s.under(0).Pin(t.Context(), one)
		require.NoError(t, err)
		require.Equal(t, 1, moved.Chunks)
		require.True(t, s.under(0).IsPinned(one[0]))
		read(false)
		_, err = s.under(0).Unpin(t.Context(), one)
		require.NoError(t, err)
		read(false)
		s.Close()

		_, err = nvme.Check(t.Context(), dir, segment.Visitor{Problem: func(p segment.Problem) { t.Errorf("%+v", p) }})
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
		s = open(t, dir, d, Raw) // whatever the mode is by now
		read(false)
		s.Close()
	}
}
