package nvme

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/test/daemon"
)

func TestReadTrace(t *testing.T) {
	list, err := readTrace(strings.NewReader(`{"timestamp": 0, "hash_ids": [0, 1]}` + "\n" + `{"hash_ids": [0, 2, 3]}` + "\n"))
	require.NoError(t, err)
	require.Equal(t, []request{{0, 1}, {0, 2, 3}}, list)
	require.Equal(t, 4, distinct(list))
	_, err = readTrace(strings.NewReader("{}\n"))
	require.ErrorContains(t, err, "line 1 of the trace has no hash_ids")
	_, err = readTrace(strings.NewReader("no"))
	require.ErrorContains(t, err, "line 1")
	_, _, err = requests(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPromptOfARequest(t *testing.T) {
	a, b := request{7, 8}.prompt(), request{7, 9, 8}.prompt()
	require.Equal(t, 2, a.Len())
	require.Equal(t, a.Key(0), b.Key(0))
	require.NotEqual(t, a.Key(1), b.Key(1))
}

// Blocks are shared as prefixes only, many are, and the same seed makes the same.
func TestSynthetic(t *testing.T) {
	list := synthetic(1, 500)
	require.Equal(t, list, synthetic(1, 500))
	require.NotEqual(t, list, synthetic(2, 500))
	before := map[int]int{}
	blocks := 0
	for _, r := range list {
		last := -1
		for _, b := range r {
			if was, seen := before[b]; seen {
				require.Equal(t, was, last, "block %d has another prefix", b)
			}
			before[b], last = last, b
		}
		blocks += len(r)
	}
	require.Less(t, distinct(list), blocks*2/3)
}

func TestServed(t *testing.T) {
	s := served{[]int{4, 1, 3}, []int{4, 4, 4}}
	require.InDelta(t, 50, s.after(1).percent(), 1e-9)
	require.Zero(t, served{}.percent())
	rng := rand.New(rand.NewPCG(1, 1))
	low, high := bootstrapHits(rng, s, s)
	require.InDelta(t, 1, low, 1e-9)
	require.InDelta(t, 1, high, 1e-9)
	low, high = bootstrapHits(rng, served{[]int{2, 1, 1}, s.asked}, s)
	require.Less(t, low, 0.5)
	require.Greater(t, high, 0.5)
}

// A daemon that is killed has on its disk what it wrote; nothing comes back
// wrong, which serve checks.
func TestReplayOverAKill(t *testing.T) {
	binary, err := daemon.Build(t.TempDir())
	require.NoError(t, err)
	p, err := newPlace(disk(t), 0)
	require.NoError(t, err)
	defer p.close()
	s := &Set{o: Options{Larderd: binary}, place: p}
	// The first prompt again and again, among others.
	var list []request
	for i := range 40 {
		list = append(list, request{0, 1, 2, 3}, request{100 * (i + 1), 100*(i+1) + 1})
	}
	whole, err := s.replay(t.Context(), list, -1)
	require.NoError(t, err)
	require.Equal(t, 0, whole.hit[0])
	for i := 2; i < len(list); i += 2 {
		require.Equal(t, 4, whole.hit[i], "request %d", i)
		require.Equal(t, 0, whole.hit[i+1], "request %d", i+1)
	}
	killed, err := s.replay(t.Context(), list, 60)
	require.NoError(t, err)
	require.Equal(t, whole.hit[:60], killed.hit[:60])
	require.Equal(t, 4, killed.hit[62], "stored again after the kill, if it had to be")
}
