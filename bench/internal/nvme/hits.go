package nvme

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// hitShape is a block of a trace: one part of 16 KiB.
var hitShape = workload.Shape{PartBytes: 16 << 10, Layers: 1, Parts: 1}

const (
	// hitHost and hitDisk are the tiers' shares of the bytes of all different
	// blocks, in percent; the disk's includes headers.
	hitHost = 5
	hitDisk = 60
)

// served is what a cache had of each request, in blocks.
type served struct{ hit, asked []int }

// hits measures nvme.restart.hits: a daemon is killed in the middle of a trace
// and started again. Its hits over the next tenth of the requests stand beside
// those of a daemon that nobody killed.
func (s *Set) hits(ctx context.Context) error {
	const name = "nvme.restart.hits"
	if !s.wants(name) {
		return nil
	}
	began := time.Now()
	list, what, err := requests(s.o.Trace)
	if err != nil {
		return err
	}
	middle, end := len(list)/2, len(list)*6/10
	if end-middle < 10 {
		return fmt.Errorf("%s: %d requests are too few", name, len(list))
	}
	list = list[:end]
	all, err := s.replay(ctx, list, -1)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	killed, err := s.replay(ctx, list, middle)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	whole, half := all.after(middle), killed.after(middle)
	if whole.percent() == 0 {
		return fmt.Errorf("%s: nothing was hit without a kill", name)
	}
	ratio := half.percent() / whole.percent()
	low, high := bootstrapHits(rand.New(rand.NewPCG(s.seed, 7)), half, whole)
	base, op, bar := whole.percent(), ">=", 0.8
	s.add(report.Row{
		Name: name, Value: half.percent(), Unit: "%", Baseline: &base, Ratio: &ratio, Low: low, High: high, N: end - middle, Op: &op, Bar: &bar,
		Beside: fmt.Sprintf("the same requests without a kill; %s; a block is one part of %d KiB, host tier %d %% and disk %d %% of %d different blocks, %s",
			what, hitShape.PartBytes>>10, hitHost, hitDisk, distinct(list), "write_back on-reuse, requests one after the other as fast as they are served"),
	}, nil, time.Since(began))
	return nil
}

// replay sends the requests to a new daemon, which is killed before the request
// of that number and started again; -1 = never.
func (s *Set) replay(ctx context.Context, list []request, kill int) (out served, err error) {
	dir, err := s.place.sub("hits")
	if err != nil {
		return out, err
	}
	bytes := int64(distinct(list)) * int64(hitShape.PartBytes)
	d, err := daemon.Start(ctx, daemon.Options{
		Binary: s.o.Larderd, Bytes: max(bytes*hitHost/100, 16<<20),
		Flags: []string{"--nvme.path=" + dir, "--nvme.bytes=" + strconv.FormatInt(max(bytes*hitDisk/100, 16<<20), 10)},
	})
	if err != nil {
		return out, err
	}
	defer d.Close()
	ns, err := workload.Namespace("trace", hitShape)
	if err != nil {
		return out, err
	}
	connect := func() (*client.Client, error) {
		return rig.Connect(ctx, client.Options{Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: ns.Encode(), CallTimeout: 10 * time.Second})
	}
	c, err := connect()
	if err != nil {
		return out, err
	}
	defer func() { _ = c.Close() }()
	for i, r := range list {
		if i == kill {
			d.Kill()
			_ = c.Close()
			if err := d.Restart(ctx); err != nil {
				return out, err
			}
			if c, err = connect(); err != nil {
				return out, err
			}
		}
		hit, err := serve(ctx, c, r.prompt())
		if err != nil {
			return out, fmt.Errorf("request %d: %w", i, err)
		}
		out.hit, out.asked = append(out.hit, hit), append(out.asked, len(r))
	}
	return out, nil
}

// serve is one request: what matches is loaded, the rest stored. It returns how
// many leading blocks came back, right.
func serve(ctx context.Context, c *client.Client, p workload.Prompt) (hit int, err error) {
	m, err := c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
	if err != nil {
		return 0, err
	}
	if m.Chunks > 0 {
		defer c.EndHolds(m.Hold)
		if hit, err = load(ctx, c, m, p); err != nil {
			return 0, err
		}
	}
	data := make([]client.ChunkData, 0, p.Len()-hit)
	for i := hit; i < p.Len(); i++ {
		b := make([]byte, hitShape.PartBytes)
		workload.Fill(b, p.Key(i), 0)
		data = append(data, client.ChunkData{
			Chunk: client.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens},
			Parts: []client.PartData{{Bytes: b}},
		})
	}
	// What is refused, since held chunks fill the arena, is not stored: so it is
	// with an engine.
	results, err := c.Store(ctx, data)
	if err != nil {
		return 0, err
	}
	for i := range results {
		if results[i].Outcome == larderv1.CommitOutcome_COMMIT_OUTCOME_CONFLICT {
			return 0, fmt.Errorf("block %d was there with other bytes", hit+i)
		}
	}
	return hit, nil
}

// load brings matched blocks and compares them.
func load(ctx context.Context, c *client.Client, m *client.Matched, p workload.Prompt) (int, error) {
	got := make([][]byte, m.Chunks)
	f, err := c.Fetch(ctx, m, client.FetchRequest{Chunks: m.Chunks, Dest: func(chunk int, _ uint32, n int) []byte {
		got[chunk] = make([]byte, n)
		return got[chunk]
	}})
	if err != nil {
		return 0, err
	}
	for _, failed := range f.Failed {
		got[failed.Chunk] = nil
	}
	for i, b := range got {
		if b == nil {
			return i, nil
		}
		if at := workload.Check(b, p.Key(i), 0); at >= 0 {
			return 0, fmt.Errorf("block %d has other bytes at %d", i, at)
		}
	}
	return m.Chunks, nil
}

// after is what was served from that request on.
func (s served) after(request int) served { return served{s.hit[request:], s.asked[request:]} }

// percent of the blocks that were hits.
func (s served) percent() float64 {
	hit, asked := 0, 0
	for i := range s.hit {
		hit += s.hit[i]
		asked += s.asked[i]
	}
	if asked == 0 {
		return 0
	}
	return 100 * float64(hit) / float64(asked)
}

// bootstrapHits is the 90 % interval of the ratio of hits, over requests, which
// are the same on both sides.
func bootstrapHits(rng *rand.Rand, a, b served) (low, high float64) {
	const resamples = 2000
	ratios := make([]float64, 0, resamples)
	for range resamples {
		var x, y int
		for range a.hit {
			i := rng.IntN(len(a.hit))
			x, y = x+a.hit[i], y+b.hit[i]
		}
		if y > 0 {
			ratios = append(ratios, float64(x)/float64(y))
		}
	}
	if len(ratios) == 0 {
		return 0, 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)*5/100], ratios[len(ratios)*95/100]
}
