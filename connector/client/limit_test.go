package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// limited is a daemon that allows so many slots.
func limited(t *testing.T, slots int) *fake {
	f := newFake(t)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.most = slots
	return f
}

// A daemon that allows fewer slots than a store fills, and than the pool wants:
// everything is stored, and once the client has heard of it, it asks for no
// more than it may have.
func TestStoreWithinALimit(t *testing.T) {
	for _, ahead := range []int{0, 1, 64} {
		f := limited(t, 4)
		c := ready(t, f, func(o *Options) { o.Credits = map[uint64]int{fakePartBytes: ahead} })
		chunks, keys := prompt(50)
		_, err := c.Store(t.Context(), chunks)
		require.NoError(t, err)
		m, err := c.Match(t.Context(), [32]byte{}, keys, MatchOptions{})
		require.NoError(t, err)
		require.Equal(t, 50, m.Chunks)
		require.NoError(t, c.Close())
		f.mu.Lock()
		require.Zero(t, f.out, "ahead %d", ahead)
		f.mu.Unlock()
	}
}

// Slots of one length that use up what is allowed do not keep a store from
// getting those of another.
func TestStoreOfTwoLengthsWithinALimit(t *testing.T) {
	f := limited(t, 4)
	c := ready(t, f, func(*Options) {})
	chunks, keys := prompt(10)
	for i := range chunks {
		chunks[i].Parts[1].Bytes = chunks[i].Parts[1].Bytes[:fakePartBytes/2]
	}
	_, err := c.Store(t.Context(), chunks)
	require.NoError(t, err)
	m, err := c.Match(t.Context(), [32]byte{}, keys, MatchOptions{})
	require.NoError(t, err)
	require.Equal(t, 10, m.Chunks)
}

func TestPoolKeepsWhatIsAllowed(t *testing.T) {
	p := newPool(map[uint64]int{8192: 30, 4096: 60, 100: 3})
	for limit, want := range map[uint64][3]int{
		0: {30, 60, 3}, 1 << 30: {30, 60, 3}, 123 * 4096: {30, 60, 3}, 41 * 4096: {10, 20, 1}, 1: {1, 1, 1},
	} {
		p.limit.Store(limit)
		require.Equal(t, want, [3]int{p.kept(8192), p.kept(4096), p.kept(100)}, "limit %d", limit)
	}
}

// An idle pool asks for what it may have and then for no more.
func TestPoolAsksForWhatIsAllowed(t *testing.T) {
	f := limited(t, 5)
	c := ready(t, f, func(o *Options) { o.Credits = map[uint64]int{fakePartBytes: 40} })
	require.Eventually(t, func() bool { return len(c.TakeCredits(fakePartBytes, 1)) == 1 }, patience, time.Millisecond)
	var counts []uint32
	f.mu.Lock()
	for _, m := range f.requests {
		for _, w := range m.GetCredits().GetWant() {
			counts = append(counts, w.GetCount())
		}
	}
	f.mu.Unlock()
	require.Equal(t, []uint32{40}, counts)
	// Below half it fills up to what it may have: with the slot that is out, one
	// more than there is.
	c.TakeCredits(fakePartBytes, 2)
	r := f.await(func(m *larderv1.SessionRequest) bool {
		want := m.GetCredits().GetWant()
		return len(want) > 0 && want[0].GetCount() < 40
	})
	require.EqualValues(t, 3, r.GetCredits().GetWant()[0].GetCount())
}
