package daemon_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// An operator pins a prompt: what is in memory, on the disk or nowhere is told
// apart, and what is pinned outlives everything that comes after it, and a
// restart, until it is unpinned or cleared.
func TestNVMePin(t *testing.T) {
	dir := t.TempDir()
	env := nvmeEnv(dir, "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0", "STATE_DIR="+filepath.Join(dir, "state"), "NVME_PINNED_PERCENT=1")
	d := daemontest.Start(t, env...)
	c := d.Connect()
	cold := storeAll(t, c, d.MetricsAddr(), 0, hostChunks)[0]
	m := c.Match(cold)
	require.Equal(t, 2, below(t, m))
	c.EndHold(m.GetHoldId())
	pin := func(unpin bool, list ...rawtest.Prompt) *larderv1.PinResponse {
		q := &larderv1.PinRequest{Unpin: unpin}
		for _, p := range list {
			q.Keys = append(q.Keys, flat(p)...)
		}
		r, err := larderv1.NewAdminClient(c.Conn).Pin(t.Context(), q)
		require.NoError(t, err)
		return r
	}
	const chunkBytes = rawtest.Parts * rawtest.PartBytes
	r := pin(false, cold, c.Prompt(5000, 1))
	require.EqualValues(t, 3, r.GetChunksAsked())
	require.EqualValues(t, 2, r.GetChunks())
	require.EqualValues(t, 1, r.GetAbsent())
	require.EqualValues(t, 2*chunkBytes, r.GetBytes())
	r = pin(false, cold)
	require.EqualValues(t, 2, r.GetChunks())
	require.Zero(t, r.GetBytes(), "pinned before")
	used := func() float64 {
		return metric(t, d.MetricsAddr(), fmt.Sprintf("larder_nvme_pinned_bytes{device=%q,state=\"used\"}", filepath.Join(dir, "nvme")))
	}
	require.EqualValues(t, 2*chunkBytes, used())

	// One percent of 64 MiB are five chunks.
	many := c.Prompt(6000, 6)
	c.Store(many, 0, 6)
	r = pin(false, many)
	require.EqualValues(t, 3, r.GetChunks())
	require.EqualValues(t, 3, r.GetFull())
	require.Contains(t, r.GetText(), "share of the budget")
	require.EqualValues(t, 5*chunkBytes, used())
	c.Check(many, 6)
	r = pin(true, many)
	require.EqualValues(t, 6, r.GetChunks()+r.GetAbsent(), "those that had no room are on the disk by now, or not")
	require.GreaterOrEqual(t, r.GetChunks(), uint32(3))
	require.EqualValues(t, 3*chunkBytes, r.GetBytes())
	require.EqualValues(t, 2*chunkBytes, used())
	require.NoError(t, c.End())
	d.Close()

	d = daemontest.Start(t, env...)
	c = d.Connect()
	require.EqualValues(t, 2*chunkBytes, used())
	for i := range 700 { // more than the disk holds
		p := c.Prompt(uint32(10000+i), 1)
		c.Store(p, 0, 1)
		if i%8 == 7 {
			eventually(t, "written", func() bool { return metric(t, d.MetricsAddr(), written) >= float64(i+1) })
		}
	}
	c.Check(cold, 2)
	c.Check(many, 0)
	require.EqualValues(t, 2, pin(true, cold).GetChunks())
	require.Zero(t, used())
	c.Check(cold, 2)
	require.NoError(t, c.End())
}

// Without a disk nothing can be pinned.
func TestPinWithoutDisk(t *testing.T) {
	d := daemontest.Start(t)
	c := d.Connect()
	p := c.Prompt(1, 1)
	_, err := larderv1.NewAdminClient(c.Conn).Pin(t.Context(), &larderv1.PinRequest{Keys: flat(p)})
	require.ErrorContains(t, err, "nvme.path")
	require.NoError(t, c.End())
}
