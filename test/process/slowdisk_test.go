package process

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// larderd on a disk that becomes slow says so after a few loads that meet it, and
// no longer after a few that are fast again.
func TestSlowDisk(t *testing.T) {
	dir := t.TempDir()
	speed := filepath.Join(dir, "speed")
	setSpeed := func(read time.Duration) {
		// In one step, since reads look at it all the time.
		require.NoError(t, os.WriteFile(speed+".new", []byte(read.String()), 0o600))
		require.NoError(t, os.Rename(speed+".new", speed))
	}
	setSpeed(0)
	binary, err := daemon.BuildSlow(dir)
	require.NoError(t, err)
	d := startBinary(t, daemon.Options{
		Binary: binary, Bytes: arenaBytes, Env: []string{"SLOWDISK=" + speed},
		Flags: []string{"--nvme.path=" + filepath.Join(dir, "nvme"), "--nvme.bytes=256MiB", "--nvme.buffered=true", "--nvme.write_back=always"},
	})
	c := connect(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()

	// Twice as much as memory holds.
	const length = 10
	prompts := make([]workload.Prompt, 13)
	for i := range prompts {
		prompts[i] = workload.NewPrompt(800<<32+uint64(i), length)
	}
	storeUntilWhole(ctx, t, c, prompts)
	// cold is a prompt of which a half or more lies on the disk, and what
	// bringing that half is said to take.
	next := 0
	cold := func() (workload.Prompt, time.Duration) {
		for range 10 * len(prompts) {
			p := prompts[next%len(prompts)]
			next++
			m, err := c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
			require.NoError(t, err)
			c.EndHolds(m.Hold)
			for _, r := range m.Tiers {
				if r.GetTier() == larderv1.Tier_TIER_NVME && r.GetChunks() >= length/2 {
					return p, time.Duration(r.GetWaitNs() + length/2*r.GetCostNs())
				}
			}
			requireLoaded(t, c, p)
		}
		t.Fatal("everything is in memory")
		return workload.Prompt{}, 0
	}

	// A chunk takes two reads. So slow that a disk without that delay is fast beside
	// it, however busy the machine is.
	const read = 50 * time.Millisecond
	p, took := cold()
	setSpeed(read)
	for took < length/2*read {
		require.NoError(t, ctx.Err(), "nobody notices how slow it is: %v", took)
		requireLoaded(t, c, p)
		p, took = cold()
	}
	setSpeed(0)
	for took > length/2*read/4 {
		require.NoError(t, ctx.Err(), "it is said to be slow for ever: %v", took)
		requireLoaded(t, c, p)
		p, took = cold()
	}
}
