package process

import (
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
)

// idle says that nobody holds anything of the arena but published chunks.
func idle(s *larderv1.StatusResponse) bool {
	h := s.GetHost()
	return h.GetGranted() == 0 && h.GetLeased() == 0 && h.GetQuarantined() == 0
}

func TestKilledBetweenGrantAndCommit(t *testing.T) {
	d := start(t, arenaBytes, "--host.granted_percent=100")
	p := newPuppet(t, d)
	require.Equal(t, 100, p.must(order{Do: "grant", N: 100}).N)
	p.enter(order{Do: "write", Fill: 1})
	s, err := d.Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 100*shape.PartBytes, s.GetHost().GetGranted())
	p.kill()
	await(t, d, "the slots of the dead are free", idle)
	other := connect(t, d)
	whole := workload.NewPrompt(1, arenaBytes/chunkBytes)
	store(t, other, whole)
	requireLoaded(t, other, whole)
}

func TestKilledWhileItReads(t *testing.T) {
	d := start(t, arenaBytes)
	other := connect(t, d)
	store(t, other, workload.NewPrompt(1, 16))
	p := newPuppet(t, d)
	p.enter(order{Do: "read", Seed: 1, N: 16})
	s, err := d.Status(t.Context())
	require.NoError(t, err)
	require.NotZero(t, s.GetHost().GetLeased())
	p.kill()
	await(t, d, "the leases and holds of the dead have ended", func(s *larderv1.StatusResponse) bool {
		return idle(s) && len(s.GetSessions()) == 1
	})
	// What it had leased and held can be evicted: the whole arena is ours.
	whole := workload.NewPrompt(2, arenaBytes/chunkBytes)
	store(t, other, whole)
	requireLoaded(t, other, whole)
}

// Many clients that die in the middle of storing leave complete chunks or
// none, and no slot behind.
func TestKilledWhileItStores(t *testing.T) {
	d := start(t, arenaBytes)
	other := connect(t, d)
	seen := 0
	for i := range 8 {
		p := newPuppet(t, d)
		seed := uint64(100 + i)
		p.send(order{Do: "store", Seed: seed, N: 40})
		before := uint64(i)
		await(t, d, "it stores", func(s *larderv1.StatusResponse) bool { return s.GetCounters().GetPublishedChunks() > before })
		p.kill()
		await(t, d, "the slots of the dead are free", idle)
		got, err := load(t.Context(), other, workload.NewPrompt(seed, 40))
		require.NoError(t, err)
		require.Zero(t, got.wrong)
		require.Equal(t, got.matched*shape.Parts, got.parts)
		seen += got.matched
	}
	require.NotZero(t, seen, "a cache that never hits proves nothing")
}
