package process

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
)

// kills is how often larderd is killed; LARDER_KILLS overrides it.
func kills(t *testing.T) int {
	v := os.Getenv("LARDER_KILLS")
	if v == "" {
		return 10
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err)
	return n
}

// checker stores and loads prompts of its own and checks every byte, whatever
// becomes of the daemon.
type checker struct {
	c    *client.Client
	seed uint64

	mu sync.Mutex
	// cut is the last session that a kill has ended.
	cut uint64
	tally
}

// tally is what a checker has seen.
type tally struct {
	hits  int // chunks that came back right
	wrong int
	// Calls that a kill has ended under way.
	cutStores, cutFetches int
	odd                   []error // that are neither "no" nor "not now"
}

func (k *checker) run(ctx context.Context) {
	for i := uint64(0); ctx.Err() == nil; i++ {
		p := workload.NewPrompt(k.seed<<32+i%6, 12)
		chunks := data(p)
		callCtx, cancel := context.WithTimeout(ctx, patience)
		generation := k.c.Generation()
		_, serr := k.c.Store(callCtx, chunks)
		got, lerr := load(callCtx, k.c, p)
		cancel()
		k.mu.Lock()
		// A kill cuts the first call that fails on a session; what follows may
		// not have begun. Calls that the test's end has cut do not count.
		if ctx.Err() == nil && generation != k.cut {
			switch {
			case errors.Is(serr, fault.Unavailable):
				k.cutStores, k.cut = k.cutStores+1, generation
			case got.matched > 0 && errors.Is(lerr, fault.Unavailable):
				// Something was matched, so what failed is the fetch.
				k.cutFetches, k.cut = k.cutFetches+1, generation
			case lerr != nil:
				k.cut = generation
			}
		}
		for _, err := range []error{serr, lerr} {
			if err != nil && !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Miss) {
				k.odd = append(k.odd, err)
			}
		}
		if lerr == nil {
			k.hits += got.matched
			k.wrong += got.wrong
			for _, f := range got.failed {
				if !errors.Is(f.Err, fault.Miss) {
					k.odd = append(k.odd, f.Err)
				}
			}
		}
		k.mu.Unlock()
		if serr != nil {
			_ = k.c.Wait(ctx) // connected again, or the test is over
		}
	}
}

func (k *checker) counts() tally {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tally
}

// larderd is killed at random points of stores and loads by several clients:
// what comes back is right or nothing, and the clients go on with the next
// daemon. Where the kills have hit no store or no fetch yet, more follow.
func TestDaemonKilled(t *testing.T) {
	d := start(t, arenaBytes)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var checkers []*checker
	for i := range uint64(3) {
		k := &checker{c: connect(t, d), seed: i}
		checkers = append(checkers, k)
		wg.Go(func() { k.run(ctx) })
	}
	sum := func() (all tally) {
		for _, k := range checkers {
			one := k.counts()
			all.hits += one.hits
			all.cutStores += one.cutStores
			all.cutFetches += one.cutFetches
		}
		return all
	}
	least := kills(t)
	killed := 0
	for ; killed < least || killed < least+50 && (sum().cutStores == 0 || sum().cutFetches == 0); killed++ {
		before := sum().hits
		require.Eventually(t, func() bool { return sum().hits > before+20 }, patience, time.Millisecond, "no hits before kill %d", killed)
		<-time.After(rand.N(20 * time.Millisecond)) // at a random point
		d.Kill()
		require.NoError(t, d.Restart(t.Context()))
	}
	before := sum().hits
	require.Eventually(t, func() bool { return sum().hits > before+20 }, patience, time.Millisecond, "no hits after the last kill")
	all := sum()
	cancel()
	wg.Wait()
	t.Logf("%d kills cut %d stores and %d fetches", killed, all.cutStores, all.cutFetches)
	require.Positive(t, all.cutStores, "no kill has hit a store")
	require.Positive(t, all.cutFetches, "no kill has hit a fetch")
	for _, k := range checkers {
		require.Zero(t, k.counts().wrong)
		require.Empty(t, k.counts().odd)
	}
}

// SIGTERM lets a load that is under way end, and refuses what is new.
func TestDaemonDrains(t *testing.T) {
	d := start(t, arenaBytes)
	c := connect(t, d)
	p := workload.NewPrompt(1, 4)
	store(t, c, p)
	m, err := c.Match(t.Context(), p.Root, p.Keys, client.MatchOptions{})
	require.NoError(t, err)
	l, err := c.Load(t.Context(), client.LoadRequest{Hold: m.Hold, Chunks: 4})
	require.NoError(t, err)
	parts, err := l.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return !c.Ready() }, patience, time.Millisecond, "the client hears of it")
	_, err = c.Match(t.Context(), p.Root, p.Keys, client.MatchOptions{})
	require.ErrorIs(t, err, fault.Unavailable)
	for _, part := range parts {
		require.Equal(t, -1, workload.Check(part.Bytes, p.Key(part.Chunk), part.Part))
	}
	confirmed, err := l.Release(t.Context())
	require.NoError(t, err)
	require.True(t, confirmed)
	select {
	case <-d.Exited():
	case <-time.After(patience):
		require.Fail(t, "larderd does not end")
	}
}

// A client that starts before its daemon joins later.
func TestClientStartsFirst(t *testing.T) {
	d := start(t, arenaBytes)
	d.Kill()
	c, err := client.New(options(d))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	_, err = c.Store(t.Context(), data(workload.NewPrompt(1, 1)))
	require.ErrorIs(t, err, fault.Unavailable, "at once, and nothing is lost but the store")
	require.NoError(t, d.Restart(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Wait(ctx))
	store(t, c, workload.NewPrompt(1, 1))
	requireLoaded(t, c, workload.NewPrompt(1, 1))
}

// A chunk whose other rank never commits is invisible, and dropped.
func TestOneRankNeverCommits(t *testing.T) {
	d := start(t, arenaBytes, "--host.pending=1s")
	c := connect(t, d)
	p := workload.NewPrompt(1, 1)
	half := data(p)
	half[0].Parts = half[0].Parts[:1]
	results, err := c.Store(t.Context(), half)
	require.NoError(t, err)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT, results[0].Outcome)
	got, err := load(t.Context(), c, p)
	require.NoError(t, err)
	require.Zero(t, got.matched)
	await(t, d, "the pending chunk is dropped", func(s *larderv1.StatusResponse) bool {
		return s.GetCounters().GetExpiredPendingChunks() == 1 && s.GetHost().GetPendingChunks() == 0 && s.GetHost().GetUsed() == 0
	})
	store(t, c, p)
	requireLoaded(t, c, p)
}
