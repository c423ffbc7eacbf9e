package process

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
)

// Two processes store the same prefix at once: one copy stays, both are told,
// both load it.
func TestTwoClientsStoreTheSame(t *testing.T) {
	d := start(t, arenaBytes)
	a, b := newPuppet(t, d), newPuppet(t, d)
	for seed := uint64(1); seed <= 5; seed++ {
		o := order{Do: "store", Seed: seed, N: 10}
		a.send(o)
		b.send(o)
		require.Empty(t, a.recv().Error)
		require.Empty(t, b.recv().Error)
		for _, p := range []*strings{a, b} {
			got := p.must(order{Do: "load", Seed: seed, N: 10})
			require.Equal(t, 20, got.N)
			require.Zero(t, got.Wrong)
		}
	}
	s, err := d.Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 50, s.GetHost().GetChunks())
	require.EqualValues(t, 50, s.GetCounters().GetPublishedChunks())
	require.EqualValues(t, 100, s.GetCounters().GetDuplicateParts())
	require.Zero(t, s.GetCounters().GetConflictParts())
}

// The same part with other bytes: the first stays and the second is told.
func TestOtherBytesUnderTheSameKey(t *testing.T) {
	d := start(t, arenaBytes)
	a, b := connect(t, d), connect(t, d)
	p := workload.NewPrompt(1, 2)
	store(t, a, p)
	other := data(p)
	other[1].Parts[1].Bytes[77] ^= 1
	results, err := b.Store(t.Context(), other)
	require.NoError(t, err)
	for i, want := range []larderv1.CommitOutcome{
		larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE, larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE,
		larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE, larderv1.CommitOutcome_COMMIT_OUTCOME_CONFLICT,
	} {
		require.Equal(t, want, results[i].Outcome)
	}
	requireLoaded(t, b, p)
}

// A match right after an acknowledged publish sees it, from every session.
func TestMatchRightAfterPublish(t *testing.T) {
	d := start(t, 64<<20)
	a, b := connect(t, d), connect(t, d)
	for seed := range uint64(200) {
		p := workload.NewPrompt(seed, 2)
		store(t, a, p)
		m, err := b.Match(t.Context(), p.Root, p.Keys, client.MatchOptions{Hold: client.NoHold})
		require.NoError(t, err)
		require.Equal(t, 2, m.Chunks, "prompt %d", seed)
	}
}

// An arena that is full of leased parts says so and loses nothing.
func TestFullOfLeases(t *testing.T) {
	d := start(t, arenaBytes)
	c := connect(t, d)
	whole := workload.NewPrompt(1, arenaBytes/chunkBytes)
	store(t, c, whole)
	m, err := c.Match(t.Context(), whole.Root, whole.Keys, client.MatchOptions{})
	require.NoError(t, err)
	require.Equal(t, whole.Len(), m.Chunks)
	l, err := c.Load(t.Context(), client.LoadRequest{Hold: m.Hold, Chunks: m.Chunks})
	require.NoError(t, err)
	seen := 0
	for seen < shape.Parts*whole.Len() {
		parts, err := l.Next(t.Context())
		require.NoError(t, err)
		seen += len(parts)
	}
	other := connect(t, d)
	results, err := other.Store(t.Context(), data(workload.NewPrompt(2, 1)))
	require.ErrorIs(t, err, fault.Full)
	require.ErrorIs(t, results[0].Err, fault.Full)
	confirmed, err := l.Release(t.Context())
	require.NoError(t, err)
	require.True(t, confirmed)
	c.EndHolds(m.Hold)
	requireLoaded(t, other, whole)
	await(t, d, "the holds have ended", func(s *larderv1.StatusResponse) bool {
		held := uint32(0)
		for _, x := range s.GetSessions() {
			held += x.GetHolds()
		}
		return held == 0
	})
	store(t, other, workload.NewPrompt(2, 1))
}

// A byte that flips in the arena is found by the next load under the shipped
// defaults: a counted miss, never wrong bytes.
func TestFlippedByte(t *testing.T) {
	// Without the scrubber, which may come first.
	d := start(t, arenaBytes, "--host.scrub_bytes=0")
	c := connect(t, d)
	p := workload.NewPrompt(1, 3)
	store(t, c, p)
	m, err := c.Match(t.Context(), p.Root, p.Keys, client.MatchOptions{})
	require.NoError(t, err)
	l, err := c.Load(t.Context(), client.LoadRequest{Hold: m.Hold, First: 1, Chunks: 1, Parts: []uint32{1}})
	require.NoError(t, err)
	parts, err := l.Next(t.Context())
	require.NoError(t, err)
	parts[0].Bytes[12345] ^= 0x10 // in mode shared any client can do that
	_, err = l.Release(t.Context())
	require.NoError(t, err)

	got, err := load(t.Context(), c, p)
	require.NoError(t, err)
	require.Zero(t, got.wrong)
	require.NotEmpty(t, got.failed)
	for _, f := range got.failed {
		require.Equal(t, 1, f.Chunk)
	}
	s, err := d.Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, s.GetCounters().GetCorruptParts())
	got, err = load(t.Context(), c, p)
	require.NoError(t, err)
	require.Equal(t, loaded{matched: 1, parts: 2}, got, "the damaged chunk is gone")
	c.EndHolds(m.Hold)
	store(t, c, p.Slice(1, 2))
	requireLoaded(t, c, p)
}

// Several clients store, load and evict at once, for a while.
func TestManyClients(t *testing.T) {
	d := start(t, arenaBytes)
	var wg sync.WaitGroup
	for i := range uint64(6) {
		c := connect(t, d, func(o *client.Options) {
			if i%2 == 0 {
				o.Credits = map[uint64]int{uint64(shape.PartBytes): 4}
			}
			o.Streams = i == 5
		})
		wg.Go(func() {
			hits := 0
			for round := range uint64(30) {
				p := workload.NewPrompt((i%3)<<32+round%7, 6)
				_, err := c.Store(t.Context(), data(p))
				if err != nil && !errorsIsOne(err, fault.Full, fault.Miss) {
					t.Errorf("store: %v", err)
				}
				got, err := load(t.Context(), c, p)
				if err != nil && !errorsIsOne(err, fault.Miss) {
					t.Errorf("load: %v", err)
				}
				if got.wrong > 0 {
					t.Errorf("%d parts with wrong bytes", got.wrong)
				}
				hits += got.parts
			}
			if hits == 0 {
				t.Error("nothing ever came back")
			}
		})
	}
	wg.Wait()
}

func errorsIsOne(err error, kinds ...fault.Kind) bool {
	k, _ := fault.KindOf(err)
	for _, kind := range kinds {
		if k == kind {
			return true
		}
	}
	return false
}
