package process

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
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

// soakTime is how long the soak lasts; LARDER_SOAK overrides it. The default
// shows that it works, no more.
func soakTime(t *testing.T) time.Duration {
	v := os.Getenv("LARDER_SOAK")
	if v == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(v)
	require.NoError(t, err)
	require.Greater(t, d, time.Second, "LARDER_SOAK")
	return d
}

const (
	// soakDisk, what nvmeFlags say, is six segments of 8 MiB, and soakPrompts prompts
	// of six chunks on average are three times that.
	soakDisk    = 48 << 20
	soakPrompts = 192
	soakChunks  = 11 // of the longest prompt
	// soakMemory is what a daemon may use besides the arena.
	soakMemory = 256 << 20
)

// soaker is a client that stores, loads, deletes and prefetches prompts, its own
// and those of others.
type soaker struct {
	c    *client.Client
	seed uint64
	r    *rand.Rand
	soakTally
}

type soakTally struct {
	stored, hits, parts, wrong, deleted, prefetched, undead, cut int
	odd                                                          []error
}

func (t *soakTally) add(o soakTally) {
	t.stored, t.hits, t.parts, t.wrong = t.stored+o.stored, t.hits+o.hits, t.parts+o.parts, t.wrong+o.wrong
	t.deleted, t.prefetched, t.undead, t.cut = t.deleted+o.deleted, t.prefetched+o.prefetched, t.undead+o.undead, t.cut+o.cut
	t.odd = append(t.odd, o.odd...)
}

// prompt is one that all know, the first ones more often than others.
func (k *soaker) prompt() workload.Prompt {
	n := uint64(float64(soakPrompts) * k.r.Float64() * k.r.Float64())
	return workload.NewPrompt(n, 1+int(n%soakChunks))
}

func (k *soaker) run(ctx context.Context) {
	for own := uint64(0); ctx.Err() == nil; own++ {
		patient := patience
		if k.r.IntN(10) == 0 { // given up somewhere in the call, as the last one of a tour is
			patient = time.Duration(k.r.IntN(3000)) * time.Microsecond
		}
		callCtx, cancel := context.WithCancel(ctx)
		giveUp := time.AfterFunc(patient, cancel)
		var err error
		switch p := k.prompt(); k.r.IntN(20) {
		case 0:
			err = k.delete(callCtx, workload.NewPrompt(1<<40+k.seed<<32+own, 3))
		case 1:
			_, err = k.c.Prefetch(callCtx, p.Root, p.Keys)
			k.prefetched++
		default:
			err = k.use(callCtx, p)
		}
		if err != nil && callCtx.Err() != nil {
			k.cut++
		}
		giveUp.Stop()
		cancel()
		if err != nil && ctx.Err() == nil && !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Miss) && !errors.Is(err, fault.Full) {
			k.odd = append(k.odd, err)
		}
		if err != nil {
			_ = k.c.Wait(ctx) // connected again, or it is over
		}
	}
}

// use loads what is there of a prompt, and stores the rest.
func (k *soaker) use(ctx context.Context, p workload.Prompt) error {
	got, err := load(ctx, k.c, p)
	if err != nil {
		return err
	}
	k.hits += got.matched
	k.parts += got.parts
	k.wrong += got.wrong
	for _, f := range got.failed {
		if !errors.Is(f.Err, fault.Miss) && !errors.Is(f.Err, fault.Full) && !errors.Is(f.Err, fault.Unavailable) {
			k.odd = append(k.odd, f.Err)
		}
	}
	if got.matched == p.Len() {
		return nil
	}
	_, err = k.c.Store(ctx, data(p)[got.matched:])
	k.stored++
	return err
}

// delete stores a prompt that nobody else knows and deletes its second chunk:
// nothing behind the first is found any more.
func (k *soaker) delete(ctx context.Context, p workload.Prompt) error {
	if err := k.use(ctx, p); err != nil {
		return err
	}
	o, err := k.c.Objects()
	if err != nil {
		return err
	}
	existed, err := o.DeleteChunk(ctx, p.Key(1))
	if err != nil {
		return err
	}
	got, err := load(ctx, k.c, p)
	if err != nil {
		return err
	}
	if got.matched > 1 {
		k.undead++
	}
	if existed {
		k.deleted++
	}
	return nil
}

// A daemon with little memory and little disk serves clients for a long time,
// and is killed, stopped and cleared now and then. Every byte that comes back is
// right, and nothing that it takes grows.
func TestSoak(t *testing.T) {
	total := soakTime(t)
	dir, address := t.TempDir(), reservePort(t)
	d := start(t, arenaBytes, append(nvmeFlags(dir, address), "--drain=5s")...)
	w := newWatcher(t, d, address, dir)
	var all soakTally
	// tour lets clients work and says what the idle daemon has afterwards.
	tour := func(seed uint64, length time.Duration, while func(ctx context.Context)) {
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var group sync.WaitGroup
		group.Go(func() { w.watch(ctx) })
		var soakers []*soaker
		for i := range uint64(3) {
			c, err := client.New(options(d))
			require.NoError(t, err)
			k := &soaker{c: c, seed: seed<<8 + i, r: rand.New(rand.NewPCG(seed, i))}
			soakers = append(soakers, k)
			group.Go(func() { k.run(ctx) })
		}
		while(ctx)
		group.Wait()
		for _, k := range soakers {
			require.NoError(t, k.c.Close())
			all.add(k.soakTally)
		}
		await(t, d, "nobody holds anything", func(s *larderv1.StatusResponse) bool { return idle(s) && len(s.GetSessions()) == 0 })
	}
	kills, stops, clears := 0, 0, 0
	step := min(total/16, 15*time.Second)
	tour(1, total/2, func(ctx context.Context) {
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(step + rand.N(step)):
			}
			w.look(ctx)
			switch i % 3 {
			case 0:
				d.Kill()
				kills++
			case 1:
				require.NoError(t, d.Signal(syscall.SIGTERM))
				<-d.Exited()
				stops++
			default:
				require.NoError(t, d.Clear(t.Context()))
				clears++
				continue
			}
			w.ended()
			require.NoError(t, d.Restart(t.Context()))
		}
	})
	// The same process from here on: what one tour leaves, another does not add to.
	work := func(ctx context.Context) { <-ctx.Done() }
	tour(2, total/4, work)
	goroutines, descriptors := w.current("go_goroutines"), w.current("process_open_fds")
	tour(3, total/4, work)
	const segments = soakDisk/(8<<20) + 2 // each an open file
	require.Eventually(t, func() bool {
		return w.current("go_goroutines") <= goroutines+4 && w.current("process_open_fds") <= descriptors+segments
	}, patience, 50*time.Millisecond, "%v goroutines and %v descriptors after one tour", goroutines, descriptors)

	// A busy machine may take longer to meet everything.
	var promoted, evicted float64
	met := func() bool {
		w.look(t.Context())
		promoted, evicted = w.total("larder_nvme_promotions_total", `outcome="done"`), w.total("larder_nvme_segments_dropped_total", `reason="budget"`)
		return all.hits > 0 && all.deleted > 0 && all.prefetched > 0 && all.cut > 0 && promoted > 0 && evicted > 0
	}
	for seed, until := uint64(4), time.Now().Add(patience); !met() && time.Now().Before(until); seed++ {
		tour(seed, total/4, work)
	}
	t.Logf("counted: %v: %d chunks hit, %d parts loaded, %d wrong; %v chunks came from the disk; %d prompts stored, %d chunks deleted, %d prefetches, %d calls cut short; %v segments dropped; %d kills, %d stops, %d clears; at most %d MiB of memory and %d MiB of disk; %v to %v goroutines, %v to %v descriptors",
		total, all.hits, all.parts, all.wrong, promoted, all.stored, all.deleted, all.prefetched, all.cut, evicted, kills, stops, clears, w.memory>>20, w.disk>>20,
		goroutines, w.current("go_goroutines"), descriptors, w.current("process_open_fds"))
	require.Zero(t, all.wrong)
	require.Zero(t, all.undead, "chunks that were deleted were found")
	require.Empty(t, all.odd)
	require.Positive(t, all.hits)
	require.Positive(t, all.deleted)
	require.Positive(t, all.prefetched)
	require.Positive(t, all.cut)
	require.Positive(t, promoted, "nothing came from the disk")
	require.Positive(t, evicted, "nothing was evicted from the disk")
	require.Positive(t, kills+stops)
	require.Positive(t, w.looks)
	require.LessOrEqual(t, w.memory, int64(soakMemory))
	require.LessOrEqual(t, w.disk, int64(soakDisk+1<<20))
	for _, kind := range []string{"unavailable", "corrupt"} {
		require.Zero(t, w.total("larder_nvme_errors_total", `kind="`+kind+`"`), kind)
	}
	require.Zero(t, w.total("larder_nvme_chunks_dropped_total", `reason="corrupt"`))

	// The last of what is there goes, and its space comes back.
	require.NoError(t, d.Clear(t.Context()))
	require.Eventually(t, func() bool { return diskBytes(t, dir) <= 2*8<<20+1<<20 }, patience, 20*time.Millisecond,
		"a cleared disk has two open segments at most: %d bytes", diskBytes(t, dir))
}
