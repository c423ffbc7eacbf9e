package daemon_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// What is shown of the nvme tier moves with what engines do, in metrics and in
// Admin.Status alike.
func TestNVMeFigures(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nvme")
	d := daemontest.Start(t, nvmeEnv(dir, "NVME_WRITE_BACK=always", "NVME_BYTES=32MiB", "LISTEN_METRICS=127.0.0.1:0")...)
	c := d.Connect()
	// label adds the device, which is on everything that is about one.
	label := func(name, more string) string { return name + `{device="` + path + `"` + more + `}` }
	read := func(name string) float64 { return metric(t, d.MetricsAddr(), name) }
	require.Zero(t, read(label("larder_nvme_user_bytes_total", "")))
	require.Zero(t, read(label("larder_nvme_off", "")))

	// More than the disk may hold: it evicts.
	prompts := storeAll(t, c, d.MetricsAddr(), 0, 48<<20/(2*rawtest.Parts*rawtest.PartBytes))
	const chunk = rawtest.Parts * rawtest.PartBytes
	user := read(label("larder_nvme_user_bytes_total", ""))
	require.GreaterOrEqual(t, user, float64(2*len(prompts)*chunk), "evicted chunks can be written again")
	device := read(label("larder_nvme_device_bytes_total", ""))
	require.Greater(t, device, user)
	require.Less(t, device, 1.5*user, "the parts of this test are small")
	require.NotZero(t, read(label("larder_nvme_chunks_dropped_total", `,reason="evicted"`)))
	require.Zero(t, read(label("larder_nvme_chunks_dropped_total", `,reason="disk_full"`)))
	require.NotZero(t, read(label("larder_nvme_segments_dropped_total", `,reason="budget"`)))
	require.NotZero(t, read(label("larder_nvme_write_seconds_count", "")))
	require.NotZero(t, read(label("larder_nvme_segments", `,state="open"`)))
	require.EqualValues(t, 32<<20, read(label("larder_nvme_bytes", `,state="budget"`)))
	require.NotZero(t, read(label("larder_nvme_bytes", `,state="used"`)))
	require.NotZero(t, read(label("larder_nvme_bytes", `,state="live"`)))
	require.NotZero(t, read(label("larder_nvme_bytes", `,state="free"`)))
	require.NotZero(t, read(label("larder_nvme_metadata_bytes", "")))
	var chunks float64
	cleaned := func() bool {
		chunks = read(label("larder_nvme_chunks", `,state="visible"`))
		return chunks > 0 && read(label("larder_nvme_parts", "")) == rawtest.Parts*chunks && read("larder_nvme_write_queue") == 0
	}
	eventually(t, "the cleaner has done what there was", cleaned)
	eventually(t, "it is synced", func() bool {
		return read(label("larder_nvme_sync_seconds_count", "")) > 0 && read(label("larder_nvme_unsynced_bytes", "")) == 0
	})

	// One that only the disk has comes back for a load.
	require.Zero(t, read("larder_nvme_promotion_seconds_count"))
	var cold rawtest.Prompt
	for _, p := range prompts {
		m := c.Match(p)
		n := below(t, m)
		c.EndHold(m.GetHoldId())
		if n == 2 {
			cold = p
			break
		}
	}
	require.NotEmpty(t, cold.Keys)
	c.Check(cold, 2)
	require.EqualValues(t, 2, read("larder_nvme_promotion_seconds_count"))
	require.EqualValues(t, 2, read(`larder_nvme_promotions_total{outcome="done"}`))
	require.EqualValues(t, 2*chunk, read("larder_nvme_promoted_bytes_total"))
	require.EqualValues(t, 2*rawtest.Parts, read(label("larder_nvme_gets_total", `,outcome="hit"`)))
	require.EqualValues(t, 2*chunk, read(label("larder_nvme_read_bytes_total", "")))
	require.NotZero(t, read(label("larder_nvme_read_seconds_count", "")))
	require.Zero(t, read(label("larder_nvme_queue", `,what="reading"`)), "nobody reads now")

	// What made room for it in memory may be written meanwhile.
	var tiers []*larderv1.TierStatus
	eventually(t, "status and metrics agree", func() bool {
		tiers = d.Status(c.Conn).GetTiers()
		return cleaned() && len(tiers) == 2 && float64(tiers[1].GetChunks()) == chunks
	})
	host, disk := tiers[0], tiers[1]
	require.Equal(t, larderv1.Tier_TIER_HOST, host.GetTier())
	require.Equal(t, uint64(4<<20), host.GetBudget())
	require.NotZero(t, host.GetEvictedChunks())
	require.Equal(t, larderv1.Tier_TIER_NVME, disk.GetTier())
	require.Equal(t, path, disk.GetDevice())
	require.Equal(t, "on", disk.GetState())
	require.Contains(t, disk.GetWhy(), "a new one was made")
	require.EqualValues(t, chunks, disk.GetChunks())
	require.EqualValues(t, 2*rawtest.Parts, disk.GetHits())
	require.EqualValues(t, 2*chunk, disk.GetReadBytes())
	require.GreaterOrEqual(t, disk.GetWrittenBytes(), uint64(user))
	require.GreaterOrEqual(t, disk.GetDeviceBytes(), uint64(device))
	require.Zero(t, disk.GetQueue())
	require.NotZero(t, disk.GetEvictedChunks())

	p := prompts[len(prompts)-1]
	_, err := larderv1.NewAdminClient(c.Conn).Clear(t.Context(), &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.NoError(t, err)
	c.Check(p, 0)
	require.Equal(t, chunks, read(label("larder_nvme_chunks_dropped_total", `,reason="cleared"`)))
	require.Zero(t, read(label("larder_nvme_bytes", `,state="live"`)))
	require.Zero(t, d.Status(c.Conn).GetTiers()[1].GetChunks())
	require.NoError(t, c.End())
}
