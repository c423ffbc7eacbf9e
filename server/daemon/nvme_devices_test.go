package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/objects"
)

// Two disks share the chunks by weight. One that is gone takes its own along: the
// other serves and takes what is new; what cannot be cleared is said. Both are
// back after a restart with other weights.
func TestNVMeDevices(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	env := []string{
		"NVME_DEVICES=" + a + ",weight=1;" + b + ",weight=3", "NVME_BYTES=64MiB", "NVME_RESERVE_BYTES=1MiB", "NVME_BUFFERED=true",
		"HOST_BYTES=4MiB", "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0", "STATE_DIR=" + filepath.Join(dir, "state"),
	}
	start := func() (*daemontest.Daemon, *rawtest.Client) {
		d := daemontest.Start(t, env...)
		return d, d.Connect()
	}
	on := func(d *daemontest.Daemon, device, name string) float64 {
		return metric(t, d.MetricsAddr(), fmt.Sprintf(name, device))
	}
	const chunks, off = `larder_nvme_chunks{device=%q,state="visible"}`, `larder_nvme_off{device=%q}`
	d, c := start()
	prompts := storeAll(t, c, d.MetricsAddr(), 0, hostChunks)
	onA, onB := on(d, a, chunks), on(d, b, chunks)
	require.EqualValues(t, 2*hostChunks, onA+onB)
	require.Greater(t, onB, onA)
	require.NotZero(t, onA)
	for _, p := range prompts {
		c.Check(p, 2)
	}
	require.NoError(t, c.End())
	d.Close()

	away := filepath.Join(dir, "away")
	require.NoError(t, os.Rename(b, away))
	require.NoError(t, os.WriteFile(b, nil, 0o600)) // no directory can be made there
	d, c = start()
	require.Zero(t, on(d, a, off))
	require.EqualValues(t, 1, on(d, b, off))
	found := 0
	for _, p := range prompts {
		m := c.Match(p)
		found += int(m.GetChunks())
		c.EndHold(m.GetHoldId())
	}
	require.NotZero(t, found)
	require.LessOrEqual(t, float64(found), onA)
	fresh := storeAll(t, c, d.MetricsAddr(), 1000, 1000+hostChunks)
	require.EqualValues(t, onA+2*hostChunks, on(d, a, chunks))
	c.Check(fresh[0], 2)
	ctx := metadata.AppendToOutgoingContext(t.Context(), objects.MetadataToken, string(c.Reply.GetSessionToken()))
	_, err := larderv1.NewObjectsClient(c.Conn).Delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: fresh[0].Keys[1][:]}})
	require.ErrorContains(t, err, b, "a copy on the disk that is gone would come back")
	c.Check(fresh[0], 1)
	_, err = larderv1.NewAdminClient(c.Conn).Clear(t.Context(), &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.ErrorContains(t, err, b)
	c.Check(fresh[0], 0)
	require.NoError(t, c.End())
	d.Close()

	require.NoError(t, os.Remove(b))
	require.NoError(t, os.Rename(away, b))
	env[0] = "NVME_DEVICES=" + a + ",weight=100;" + b + ",weight=1"
	d, c = start()
	require.Zero(t, on(d, b, off))
	require.Zero(t, on(d, a, chunks))
	found = 0
	for _, p := range prompts {
		m := c.Match(p)
		found += int(m.GetChunks())
		c.EndHold(m.GetHoldId())
		c.Check(p, int(m.GetChunks()))
	}
	require.NotZero(t, found, "what the second disk has is found, though the first one has its place now")
	_, err = larderv1.NewAdminClient(c.Conn).Clear(t.Context(), &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.NoError(t, err)
	c.Check(prompts[0], 0)
	require.NoError(t, c.End())
}

// A disk with a store that the daemon does not know ends the start, and the
// others are closed again.
func TestNVMeForeignDevice(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	require.NoError(t, os.MkdirAll(filepath.Join(b, "segments"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(b, "segments", "something"), []byte("else"), 0o600))
	env := []string{"NVME_DEVICES=" + a + ";" + b, "NVME_BYTES=64MiB", "NVME_RESERVE_BYTES=1MiB", "NVME_BUFFERED=true"}
	_, err := daemon.New(daemontest.Configure(t, env...), daemon.Options{Notify: func(string) error { return nil }})
	require.ErrorContains(t, err, b)
	require.ErrorContains(t, err, "nvme.devices: cannot be used")
	env[0] = "NVME_DEVICES=" + a
	d := daemontest.Start(t, env...)
	c := d.Connect()
	p := c.Prompt(1, 2)
	c.Store(p, 0, 2)
	c.Check(p, 2)
	require.NoError(t, c.End())
}

// A device that cannot be used at start is no reason not to serve.
func TestNVMeGone(t *testing.T) {
	d := daemontest.Start(t, "NVME_PATH=/proc/no/such/place", "LISTEN_METRICS=127.0.0.1:0")
	c := d.Connect()
	p := c.Prompt(1, 2)
	c.Store(p, 0, 2)
	c.Check(p, 2)
	require.EqualValues(t, 1, metric(t, d.MetricsAddr(), `larder_nvme_off{device="/proc/no/such/place"}`))
	tiers := d.Status(c.Conn).GetTiers()
	require.Len(t, tiers, 2)
	require.Equal(t, "on", tiers[0].GetState())
	require.EqualValues(t, 2, tiers[0].GetChunks())
	require.Equal(t, larderv1.Tier_TIER_NVME, tiers[1].GetTier())
	require.Equal(t, "/proc/no/such/place", tiers[1].GetDevice())
	require.Equal(t, "off", tiers[1].GetState())
	require.Contains(t, tiers[1].GetWhy(), "the directory cannot be made")
	require.NoError(t, c.End())
}
