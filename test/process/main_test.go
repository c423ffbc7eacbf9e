package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// larderd is the path of the binary under test.
var larderd string

// patience bounds every wait; nothing is timed.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(puppetEnv) != "" {
		puppetMain()
		return
	}
	dir, err := os.MkdirTemp("", "larder-process-")
	if err == nil {
		larderd, err = daemon.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// The shape of everything that is stored here: chunks of two parts of 64 KiB.
var shape = workload.Shape{PartBytes: 64 << 10, Layers: 2, Parts: 2}

const (
	chunkBytes = 128 << 10
	// arenaBytes holds 64 chunks.
	arenaBytes = 8 << 20
)

func namespaceBytes() []byte {
	d, err := workload.Namespace("process", shape)
	if err != nil {
		panic(err) // the shape is a constant
	}
	return d.Encode()
}

func start(t *testing.T, bytes int64, flags ...string) *daemon.Daemon {
	t.Helper()
	return startBinary(t, daemon.Options{Binary: larderd, Bytes: bytes, Flags: flags})
}

func startBinary(t *testing.T, o daemon.Options) *daemon.Daemon {
	t.Helper()
	d, err := daemon.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		d.Close()
		if t.Failed() {
			t.Log("larderd wrote:\n" + d.Log())
		}
	})
	return d
}

func options(d *daemon.Daemon) client.Options {
	return client.Options{
		Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: namespaceBytes(), CallTimeout: patience, DialTimeout: patience,
		BackoffMin: time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
}

func connect(t *testing.T, d *daemon.Daemon, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := options(d)
	for _, f := range change {
		f(&o)
	}
	c, err := client.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Wait(ctx))
	return c
}

// restart kills the daemon, starts another one in its place and waits for the
// client's next session: until it has heard of the kill it has the last one.
func restart(t *testing.T, d *daemon.Daemon, c *client.Client) {
	t.Helper()
	before := c.Generation()
	d.Kill()
	require.NoError(t, d.Restart(t.Context()))
	require.Eventually(t, func() bool { return c.Generation() > before && c.Ready() }, patience, time.Millisecond)
}

// data makes the chunks of a prompt with the bytes that belong to them.
func data(p workload.Prompt) []client.ChunkData {
	chunks := make([]client.ChunkData, p.Len())
	for i := range chunks {
		chunks[i].Chunk = chunkOf(p, i)
		for part := range uint32(shape.Parts) {
			b := make([]byte, shape.PartBytes)
			workload.Fill(b, p.Key(i), part)
			chunks[i].Parts = append(chunks[i].Parts, client.PartData{Part: part, Bytes: b})
		}
	}
	return chunks
}

func chunkOf(p workload.Prompt, i int) client.Chunk {
	return client.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens}
}

// store stores a prompt and fails the test unless all of it is published.
func store(t *testing.T, c *client.Client, p workload.Prompt) {
	t.Helper()
	// Where a lease is short and the machine busy, a part may come too late:
	// the caller is told and stores it again.
	published := make(map[int]bool)
	for try := 0; len(published) < p.Len(); try++ {
		require.Less(t, try, 10, "chunks published: %d of %d", len(published), p.Len())
		results, err := c.Store(t.Context(), data(p))
		if err != nil {
			require.ErrorIs(t, err, fault.Miss)
		}
		for i, r := range results {
			switch r.Outcome {
			case larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE:
				published[i/shape.Parts] = true
			case larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED:
				require.ErrorIs(t, r.Err, fault.Miss)
			}
		}
	}
}

// fill stores prompts of 10 chunks each, several times what the arena holds,
// and returns the last ones, which are still there. (One long prompt would not
// do: its tail is evicted before its head.)
func fill(t *testing.T, c *client.Client, seed uint64) []workload.Prompt {
	t.Helper()
	var prompts []workload.Prompt
	for i := range uint64(20) {
		p := workload.NewPrompt(seed<<32+i, 10)
		store(t, c, p)
		prompts = append(prompts, p)
	}
	return prompts[len(prompts)-4:]
}

// loaded is what came back of a prompt.
type loaded struct {
	matched, parts, wrong int
	failed                []client.FailedPart
}

// load matches and fetches a prompt and compares every byte. The error is the
// client's; bytes count only where it is nil.
func load(ctx context.Context, c *client.Client, p workload.Prompt) (loaded, error) {
	m, err := c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
	if err != nil {
		return loaded{}, err
	}
	defer c.EndHolds(m.Hold)
	out := loaded{matched: m.Chunks}
	if m.Chunks == 0 {
		return out, nil
	}
	got := make(map[[2]int][]byte)
	f, err := c.Fetch(ctx, m, client.FetchRequest{Chunks: m.Chunks, Dest: func(chunk int, part uint32, n int) []byte {
		b := make([]byte, n)
		got[[2]int{chunk, int(part)}] = b
		return b
	}})
	if err != nil {
		return out, err
	}
	out.parts, out.failed = f.Parts, f.Failed
	// A part that failed has promised nothing.
	for _, f := range f.Failed {
		delete(got, [2]int{f.Chunk, int(f.Part)})
	}
	for at, b := range got {
		if workload.Check(b, p.Key(at[0]), uint32(at[1])) >= 0 {
			out.wrong++
		}
	}
	return out, nil
}

// storeUntilWhole stores prompts until all of them are there at once: what was
// evicted from memory before it was written to the disk is stored again.
func storeUntilWhole(ctx context.Context, t *testing.T, c *client.Client, prompts []workload.Prompt) {
	t.Helper()
	for whole := false; !whole; {
		require.NoError(t, ctx.Err(), "not everything came to the disk")
		whole = true
		for _, p := range prompts {
			got, err := load(ctx, c, p)
			require.NoError(t, err)
			require.Zero(t, got.wrong)
			if got.matched < p.Len() {
				whole = false
				store(t, c, p)
			}
		}
	}
}

// requireLoaded fails the test unless the whole prompt comes back right.
func requireLoaded(t *testing.T, c *client.Client, p workload.Prompt) {
	t.Helper()
	got, err := load(t.Context(), c, p)
	require.NoError(t, err)
	require.Equal(t, loaded{matched: p.Len(), parts: shape.Parts * p.Len()}, got)
}

// requireLoadedInTime is requireLoaded where leases are short: a load that the
// machine was too busy for is a miss, and is done again.
func requireLoadedInTime(t *testing.T, c *client.Client, p workload.Prompt) {
	t.Helper()
	for range 10 {
		if _, err := load(t.Context(), c, p); !errors.Is(err, fault.Miss) {
			break
		}
	}
	requireLoaded(t, c, p)
}

// await polls the daemon's status until it fits.
func await(t *testing.T, d *daemon.Daemon, what string, fits func(*larderv1.StatusResponse) bool) *larderv1.StatusResponse {
	t.Helper()
	var last *larderv1.StatusResponse
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s, err := d.Status(ctx)
		if err == nil {
			last = s
		}
		return err == nil && fits(s)
	}, patience, 5*time.Millisecond, "%s: %v", what, last)
	return last
}
