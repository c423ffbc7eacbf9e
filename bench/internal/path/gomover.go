package path

import (
	"context"
	"fmt"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// goMover is the Go client: one goroutine stores and loads. Its memcpy is the
// baseline's.
type goMover struct {
	*baseline
	set  *Set
	z    size
	d    *daemon.Daemon
	c    *client.Client
	ring *rig.Ring

	loaded workload.Prompt // what loads read
	at     int             // the next chunk to load
}

func (g *goMover) open(ctx context.Context, d *daemon.Daemon, z size) error {
	g.d, g.z = d, z
	ns, err := workload.Namespace("go."+z.name, z.shape)
	if err != nil {
		return err
	}
	g.c, err = rig.Connect(ctx, client.Options{
		Endpoint:    client.Endpoint{Socket: d.Socket},
		Namespace:   ns.Encode(),
		CallTimeout: 10 * time.Second,
		Prefault:    true,
		Credits:     map[uint64]int{uint64(z.shape.PartBytes): 2 * z.batch},
	})
	return err
}

func (g *goMover) close() {
	if g.c != nil {
		_ = g.c.Close()
	}
}

// chunks names the next batch of a prompt, with bytes from the ring.
func (g *goMover) chunks(p workload.Prompt, from int) []client.ChunkData {
	list := make([]client.ChunkData, g.z.batch)
	parts := make([]client.PartData, g.z.batch)
	for i := range list {
		n := from + i
		parts[i] = client.PartData{Bytes: g.ring.Next(g.z.shape.PartBytes)}
		list[i] = client.ChunkData{
			Chunk: client.Chunk{Key: p.Key(n), Parent: p.Key(n - 1), Ordinal: uint32(n), Tokens: workload.ChunkTokens},
			Parts: parts[i : i+1],
		}
	}
	return list
}

func (g *goMover) store(ctx context.Context) (pairs.Sample, error) {
	g.loaded = workload.Prompt{} // evicted by what comes now
	n := g.z.batches() * g.z.batch
	p := workload.NewPrompt(g.set.next(), n)
	return timed(g.z, g.d, func() error {
		for at := 0; at < n; at += g.z.batch {
			if err := g.put(ctx, g.chunks(p, at)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (g *goMover) put(ctx context.Context, list []client.ChunkData) error {
	results, err := g.c.Store(ctx, list)
	if err != nil {
		return err
	}
	for i := range results {
		if results[i].Outcome != larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED {
			return fmt.Errorf("part %d: %v: %w", i, results[i].Outcome, results[i].Err)
		}
	}
	return nil
}

// fill stores what loads are to read.
func (g *goMover) fill(ctx context.Context) error {
	if g.loaded.Len() > 0 {
		return nil
	}
	p := workload.NewPrompt(g.set.next(), g.z.parts())
	for at := 0; at < p.Len(); at += g.z.batch {
		if err := g.put(ctx, g.chunks(p, at)); err != nil {
			return err
		}
	}
	g.loaded, g.at = p, 0
	return nil
}

func (g *goMover) load(ctx context.Context) (pairs.Sample, error) {
	if err := g.fill(ctx); err != nil {
		return pairs.Sample{}, err
	}
	// The hold is not part of a load: it has rows of its own (match.*).
	m, err := g.c.Match(ctx, g.loaded.Root, g.loaded.Keys, client.MatchOptions{})
	if err != nil {
		return pairs.Sample{}, err
	}
	defer g.c.EndHolds(m.Hold)
	if m.Chunks != g.loaded.Len() {
		return pairs.Sample{}, fmt.Errorf("%d of %d chunks are there", m.Chunks, g.loaded.Len())
	}
	return timed(g.z, g.d, func() error {
		for range g.z.batches() {
			if g.at+g.z.batch > g.loaded.Len() {
				g.at = 0
			}
			got, err := g.c.Fetch(ctx, m, client.FetchRequest{First: g.at, Chunks: g.z.batch, Dest: func(_ int, _ uint32, n int) []byte { return g.ring.Next(n) }})
			if err != nil {
				return err
			}
			if got.Parts != g.z.batch {
				return fmt.Errorf("%d of %d parts: %v", got.Parts, g.z.batch, got.Failed)
			}
			g.at += g.z.batch
		}
		return nil
	})
}
