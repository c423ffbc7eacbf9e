package daemon_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/objects"
)

// chunks of the host tier in these tests: 4 MiB of 128 KiB.
const hostChunks = 32

func nvmeEnv(dir string, more ...string) []string {
	return append([]string{
		"NVME_PATH=" + filepath.Join(dir, "nvme"), "NVME_BYTES=64MiB", "NVME_RESERVE_BYTES=1MiB", "NVME_BUFFERED=true", "HOST_BYTES=4MiB",
	}, more...)
}

// metric reads one metric, with its labels, from the endpoint.
func metric(t testing.TB, addr, name string) float64 {
	r, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Body.Close()) }()
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			var v float64
			_, err := fmt.Sscan(rest, &v)
			require.NoError(t, err)
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

const written = `larder_nvme_writes_total{outcome="done"}`

// storeAll stores prompts of two chunks each, and waits until all are below.
func storeAll(t testing.TB, c *rawtest.Client, addr string, from, to int) (prompts []rawtest.Prompt) {
	for i := from; i < to; i++ {
		p := c.Prompt(uint32(i), 2)
		c.Store(p, 0, 2)
		prompts = append(prompts, p)
		if i%4 != 3 && i != to-1 {
			continue // looking is slow, and memory holds four times as much
		}
		eventually(t, "the prompts are written", func() bool { return metric(t, addr, written) >= float64(2*(i-from+1)) })
	}
	return prompts
}

// below counts the chunks of a match that lie on the disk.
func below(t testing.TB, m *larderv1.MatchReply) (n int) {
	sum := uint32(0)
	for _, r := range m.GetTiers() {
		sum += r.GetChunks()
		if r.GetTier() == larderv1.Tier_TIER_NVME {
			require.NotZero(t, r.GetCostNs(), "0 says that it is in the arena")
			n += int(r.GetChunks())
		}
	}
	require.Equal(t, m.GetChunks(), sum)
	return n
}

// Prompts that no longer fit into memory are found on the disk, come back with
// the right bytes, and outlive the daemon.
func TestNVMe(t *testing.T) {
	dir := t.TempDir()
	env := nvmeEnv(dir, "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0", "STATE_DIR="+filepath.Join(dir, "state"))
	d := daemontest.Start(t, env...)
	c := d.Connect()
	prompts := storeAll(t, c, d.MetricsAddr(), 0, hostChunks)
	cold := 0
	for _, p := range prompts {
		m := c.Match(p)
		require.EqualValues(t, 2, m.GetChunks())
		cold += below(t, m)
		c.EndHold(m.GetHoldId())
	}
	require.GreaterOrEqual(t, cold, hostChunks, "twice as much was stored as memory holds")
	for _, p := range prompts {
		c.Check(p, 2)
	}
	require.GreaterOrEqual(t, metric(t, d.MetricsAddr(), `larder_nvme_promotions_total{outcome="done"}`), float64(hostChunks))

	// A prefetch brings what is not there.
	m := c.Match(prompts[0])
	require.Equal(t, 2, below(t, m))
	c.EndHold(m.GetHoldId())
	prefetch := func() uint32 {
		r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Prefetch{
			Prefetch: &larderv1.Prefetch{Root: prompts[0].Root[:], Keys: flat(prompts[0])},
		}})
		require.NotNil(t, r.GetPrefetch(), "%v", r)
		return r.GetPrefetch().GetResident()
	}
	require.Zero(t, prefetch())
	eventually(t, "prefetched", func() bool { return prefetch() == 2 })
	require.NoError(t, c.End())
	d.Close()

	// The first match after a restart hits.
	d = daemontest.Start(t, env...)
	c = d.Connect()
	for i, p := range prompts {
		m := c.Match(p)
		require.EqualValues(t, 2, m.GetChunks(), "prompt %d", i)
		require.Equal(t, 2, below(t, m))
		c.EndHold(m.GetHoldId())
		c.Check(p, 2)
	}

	// Deleted and cleared is gone from the disk too.
	_, err := larderv1.NewAdminClient(c.Conn).Clear(t.Context(), &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.NoError(t, err)
	for _, p := range prompts {
		c.Check(p, 0)
	}
	require.NoError(t, c.End())
	d.Close()
	d = daemontest.Start(t, env...)
	c = d.Connect()
	for _, p := range prompts {
		c.Check(p, 0)
	}
	c.Store(prompts[0], 0, 2)
	c.Check(prompts[0], 2)
	require.NoError(t, c.End())
}

func flat(p rawtest.Prompt) (b []byte) {
	for _, k := range p.Keys {
		b = append(b, k[:]...)
	}
	return b
}

// A real daemon is killed; the next one finds everything that was written, with
// and without its index.
func TestNVMeKilled(t *testing.T) {
	dir := t.TempDir()
	addr := reservePort(t)
	env := append(daemonEnv(dir), "LARDER_LISTEN_METRICS="+addr)
	for _, e := range nvmeEnv(dir, "NVME_WRITE_BACK=always") {
		env = append(env, "LARDER_"+e)
	}
	d := startChild(t, env...)
	require.Equal(t, "serving", d.answer())
	c := connectIn(t, dir)
	prompts := storeAll(t, c, addr, 0, hostChunks)
	for _, index := range []bool{true, false} {
		d.kill()
		if !index {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "nvme", "index")))
		}
		d = startChild(t, env...)
		require.Equal(t, "serving", d.answer())
		c = connectIn(t, dir)
		m := c.Match(prompts[0])
		require.Equal(t, 2, below(t, m), "the first match after a restart hits; index: %v", index)
		c.EndHold(m.GetHoldId())
		for _, p := range prompts {
			c.Check(p, 2)
		}
	}
	// The orderly end writes the rest; the default policy needs no reuse then.
	require.NoError(t, d.in.Close())
	require.NoError(t, d.cmd.Wait())
}

// By default a chunk is written when it is matched again, and what was never
// matched when the daemon ends.
func TestNVMeOnReuse(t *testing.T) {
	dir := t.TempDir()
	env := nvmeEnv(dir, "HOST_BYTES=32MiB", "LISTEN_METRICS=127.0.0.1:0", "STATE_DIR="+filepath.Join(dir, "state"), "DRAIN=20s")
	d := daemontest.Start(t, env...)
	c := d.Connect()
	a, b := c.Prompt(1, 3), c.Prompt(2, 3)
	c.Store(a, 0, 3)
	c.Store(b, 0, 3)
	m := c.Match(a)
	c.EndHold(m.GetHoldId())
	eventually(t, "reused chunks are written", func() bool { return metric(t, d.MetricsAddr(), written) >= 3 })
	require.NoError(t, c.End())
	d.Close()
	d = daemontest.Start(t, env...)
	c = d.Connect()
	c.Check(a, 3)
	c.Check(b, 3)
	require.NoError(t, c.End())
}

// The cleaner writes what nears the eviction tail, though nobody matched it; so
// it is found when memory has dropped it.
func TestNVMeCleaner(t *testing.T) {
	dir := t.TempDir()
	d := daemontest.Start(t, nvmeEnv(dir, "NVME_WRITE_BACK=on-evict", "LISTEN_METRICS=127.0.0.1:0")...)
	c := d.Connect()
	var prompts []rawtest.Prompt
	for i := range hostChunks / 2 {
		prompts = append(prompts, c.Prompt(uint32(i), 2))
		c.Store(prompts[i], 0, 2)
	}
	// A tenth of the arena: the first prompt and the tail of the second.
	eventually(t, "the tail is clean", func() bool { return metric(t, d.MetricsAddr(), written) >= 3 })
	require.Less(t, metric(t, d.MetricsAddr(), written), float64(hostChunks)/2)
	for i := range 4 { // more than a prompt's worth of memory, whatever is free
		c.Store(c.Prompt(uint32(100+i), 1), 0, 1)
	}
	m := c.Match(prompts[0])
	require.EqualValues(t, 2, m.GetChunks())
	require.NotZero(t, below(t, m), "%v, %v", m, d.Status(c.Conn).Host)
	c.EndHold(m.GetHoldId())
	c.Check(prompts[0], 2)
	require.NoError(t, c.End())
}

// Who has no arena reads from the disk too, and deletes there.
func TestNVMeObjects(t *testing.T) {
	dir := t.TempDir()
	d := daemontest.Start(t, nvmeEnv(dir, "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0")...)
	c := d.Connect()
	prompts := storeAll(t, c, d.MetricsAddr(), 0, hostChunks)
	p := prompts[0]
	m := c.Match(p)
	require.Equal(t, 2, below(t, m))
	c.EndHold(m.GetHoldId())
	ctx := metadata.AppendToOutgoingContext(t.Context(), objects.MetadataToken, string(c.Reply.GetSessionToken()))
	files := larderv1.NewObjectsClient(c.Conn)
	want := &larderv1.GetParts{Ids: []*larderv1.PartId{{ChunkKey: p.Keys[1][:], HeadGroup: 1}}}
	st, err := files.Stat(ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_Parts{Parts: want}})
	require.NoError(t, err)
	require.True(t, st.GetParts()[0].GetPresent())
	require.Equal(t, larderv1.Tier_TIER_NVME, st.GetParts()[0].GetTier())
	operator := larderv1.NewAdminClient(c.Conn)
	shown, err := operator.Inspect(t.Context(), &larderv1.InspectRequest{ChunkKey: p.Keys[1][:]})
	require.NoError(t, err)
	require.True(t, shown.GetComplete())
	require.Equal(t, p.Keys[0][:], shown.GetParent())
	require.EqualValues(t, 1, shown.GetOrdinal())
	require.Equal(t, "default", shown.GetTenant())
	require.Len(t, shown.GetParts(), rawtest.Parts)
	for _, x := range shown.GetParts() {
		require.Equal(t, larderv1.Tier_TIER_NVME, x.GetTier())
		require.Nil(t, x.GetSlot())
		require.Equal(t, "ok", x.GetVerified())
	}
	// What is in both tiers is shown in both, and found in the faster one.
	last := prompts[len(prompts)-1]
	both := &larderv1.GetParts{Ids: []*larderv1.PartId{{ChunkKey: last.Keys[1][:], HeadGroup: 1}}}
	st, err = files.Stat(ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_Parts{Parts: both}})
	require.NoError(t, err)
	require.Equal(t, larderv1.Tier_TIER_HOST, st.GetParts()[0].GetTier())
	shown, err = operator.Inspect(t.Context(), &larderv1.InspectRequest{ChunkKey: last.Keys[1][:]})
	require.NoError(t, err)
	var where []larderv1.Tier
	for _, x := range shown.GetParts() {
		where = append(where, x.GetTier())
	}
	require.Equal(t, []larderv1.Tier{larderv1.Tier_TIER_HOST, larderv1.Tier_TIER_HOST, larderv1.Tier_TIER_NVME, larderv1.Tier_TIER_NVME}, where)
	stream, err := files.Get(ctx, &larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: want}})
	require.NoError(t, err)
	var data []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data = append(data, r.GetData()...)
	}
	require.Equal(t, rawtest.Content(p.Keys[1], 1), data)

	// Nothing was promoted for it.
	m = c.Match(p)
	require.Equal(t, 2, below(t, m))
	c.EndHold(m.GetHoldId())
	r, err := files.Delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: p.Keys[1][:]}})
	require.NoError(t, err)
	require.True(t, r.GetExisted())
	c.Check(p, 1)
	r, err = files.Delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: p.Keys[1][:]}})
	require.NoError(t, err)
	require.False(t, r.GetExisted())
	require.NoError(t, c.End())
}
