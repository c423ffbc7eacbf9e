package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/connector/client"
)

// What bench stores at a time: 64 MiB, which is all that it ever takes from
// the cache, since each round drops what it stored.
const (
	benchPart   = 4 << 20
	benchChunks = 16
	benchLayers = 32
)

// benched is what bench prints as JSON.
type benched struct {
	SharedMemory bool `json:"shared_memory"`
	Rounds       int  `json:"rounds"`
	// GiB/s, medians over the rounds.
	StoreGiBs  float64 `json:"store_gib_s"`
	LoadGiBs   float64 `json:"load_gib_s"`
	MemcpyGiBs float64 `json:"memcpy_gib_s"`
	// Microseconds, median.
	MatchUs float64 `json:"match_us"`
}

func (a *app) benchCommand() *cobra.Command {
	d := 3 * time.Second
	streams := false
	c := &cobra.Command{
		Use:   "bench",
		Short: "Quick figures of this host's daemon: store, load, match",
		Long: `Stores, loads and drops 64 MiB of its own, again and again, and prints medians
beside a plain copy of the same bytes. The figures say whether the set-up is
sound, not more: for figures to compare use make bench. What a full cache holds
longest unused may be evicted to make room.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.bench(c.Context(), d, streams)
			if err != nil {
				return err
			}
			return a.print(b, func() error {
				way := "shared memory"
				if !b.SharedMemory {
					way = "streams"
				}
				return render.Pairs(a.Out,
					"way", fmt.Sprintf("%s, %d rounds", way, b.Rounds),
					"store", fmt.Sprintf("%.2f GiB/s", b.StoreGiBs),
					"load", fmt.Sprintf("%.2f GiB/s", b.LoadGiBs),
					"plain copy", fmt.Sprintf("%.2f GiB/s", b.MemcpyGiBs),
					fmt.Sprintf("match of %d", benchChunks), fmt.Sprintf("%.0f us", b.MatchUs),
				)
			})
		},
	}
	c.Flags().DurationVar(&d, "duration", d, "how long to measure")
	c.Flags().BoolVar(&streams, "streams", false, "measure the way without shared memory")
	return c
}

func (a *app) bench(ctx context.Context, d time.Duration, streams bool) (*benched, error) {
	ns, err := workload.Namespace("larder-bench", workload.Shape{PartBytes: benchPart, Layers: benchLayers, Parts: 1})
	if err != nil {
		return nil, err
	}
	c, err := a.session(ctx, client.Options{Namespace: ns.Encode(), Streams: streams, Prefault: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	objects, err := c.Objects()
	if err != nil {
		return nil, err
	}
	r := benchRound{c: c, objects: objects, src: make([]byte, benchChunks*benchPart), dst: make([]byte, benchChunks*benchPart)}
	b := &benched{SharedMemory: c.SharedMemory()}
	var store, load, plain, match []float64
	end := time.Now().Add(d)
	for seed := uint64(time.Now().UnixNano()); time.Now().Before(end) || len(store) < 3; seed++ {
		err := r.run(ctx, workload.NewPrompt(seed, benchChunks))
		if err != nil {
			return nil, err
		}
		if b.Rounds++; b.Rounds == 1 {
			continue // page faults
		}
		store, load = append(store, rate(r.store)), append(load, rate(r.load))
		plain, match = append(plain, rate(r.plain)), append(match, float64(r.match.Nanoseconds())/1e3)
	}
	b.StoreGiBs, b.LoadGiBs, b.MemcpyGiBs, b.MatchUs = median(store), median(load), median(plain), median(match)
	return b, nil
}

// benchRound stores, matches, loads and drops one prompt.
type benchRound struct {
	c        *client.Client
	objects  *client.Objects
	src, dst []byte

	store, load, plain, match time.Duration
}

func (r *benchRound) run(ctx context.Context, p workload.Prompt) error {
	chunks := make([]client.ChunkData, benchChunks)
	for i := range chunks {
		chunks[i] = client.ChunkData{
			Chunk: client.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens},
			Parts: []client.PartData{{Bytes: r.src[i*benchPart : (i+1)*benchPart]}},
		}
	}
	t := time.Now()
	results, err := r.c.Store(ctx, chunks)
	if err != nil {
		return err
	}
	r.store = time.Since(t)
	for _, res := range results {
		if res.Outcome != larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED {
			return fault.Wrap(fault.Unavailable, res.Err, "", "a part was not published").With(res.Outcome, nil)
		}
	}
	t = time.Now()
	m, err := r.c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
	if err != nil {
		return err
	}
	r.match = time.Since(t)
	if m.Chunks < benchChunks {
		return withRemedy(fault.New(fault.Full, "host.bytes", "what was stored is evicted before it can be loaded").
			With(fmt.Sprintf("%d chunks left", m.Chunks), benchChunks),
			fmt.Sprintf("bench needs %d MiB that nothing holds; raise host.bytes or try again", benchChunks*benchPart>>20))
	}
	t = time.Now()
	got, err := r.c.Fetch(ctx, m, client.FetchRequest{Chunks: m.Chunks, Dest: func(chunk int, _ uint32, n int) []byte {
		return r.dst[chunk*benchPart:][:n]
	}})
	if err != nil {
		return err
	}
	r.load = time.Since(t)
	if got.Parts != benchChunks {
		return fault.New(fault.Miss, "", "not all that was stored came back").With(got.Parts, benchChunks)
	}
	t = time.Now()
	copy(r.dst, r.src)
	r.plain = time.Since(t)
	r.c.EndHolds(m.Hold)
	for i := range benchChunks {
		if _, err := r.objects.DeleteChunk(ctx, p.Key(i)); err != nil {
			return err
		}
	}
	return nil
}

func rate(d time.Duration) float64 {
	return float64(benchChunks*benchPart) / (1 << 30) / d.Seconds()
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
