package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/bench/workload"
)

// nvmeFlags are those of a daemon with a disk in the directory.
func nvmeFlags(dir, address string) []string {
	return []string{
		"--nvme.path=" + dir, "--nvme.bytes=48MiB", "--nvme.reserve_bytes=1MiB", "--nvme.buffered=true", "--nvme.write_back=always",
		"--listen.metrics=" + address,
	}
}

// A disk that is not there at the start is no reason not to serve: the tier is
// off, and a metric says so.
func TestDeviceGoneAtStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("not a directory"), 0o600))
	address := reservePort(t)
	dir := filepath.Join(file, "nvme")
	d := start(t, arenaBytes, nvmeFlags(dir, address)...)
	w := newWatcher(t, d, address, dir)
	require.EqualValues(t, 1, w.current("larder_nvme_off"))
	c := connect(t, d)
	p := workload.NewPrompt(1, 8)
	store(t, c, p)
	requireLoaded(t, c, p)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "not a directory", string(b))
}

// A disk that goes while the daemon runs turns the tier off; memory serves on.
// The next start finds a disk again.
func TestDeviceGoneAtRunTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nvme")
	address := reservePort(t)
	d := start(t, arenaBytes, nvmeFlags(dir, address)...)
	w := newWatcher(t, d, address, dir)
	c := connect(t, d)
	promoted := func() float64 { return w.current("larder_nvme_promotions_total", `outcome="done"`) }
	// It works at first: more than memory holds comes back from the disk.
	for i := range uint64(12) {
		p := workload.NewPrompt(i, 10)
		store(t, c, p)
		require.Eventually(t, func() bool { return w.current("larder_nvme_write_queue") == 0 }, patience, time.Millisecond, "written")
	}
	for i := range uint64(12) {
		got, err := load(t.Context(), c, workload.NewPrompt(i, 10))
		require.NoError(t, err)
		require.Zero(t, got.wrong)
	}
	require.Positive(t, promoted(), "nothing came from the disk")
	require.Zero(t, w.current("larder_nvme_off"))

	// What the daemon makes while files are removed goes with the next try.
	require.Eventually(t, func() bool { return os.RemoveAll(dir) == nil }, patience, time.Millisecond)
	// What is open goes on for a while: until no new file can be made, too often.
	until := time.Now().Add(2 * patience)
	for i := uint64(100); w.current("larder_nvme_off") == 0; i++ {
		require.True(t, time.Now().Before(until), "the tier is not off: %v errors", w.current("larder_nvme_errors_total", `kind="unavailable"`))
		p := workload.NewPrompt(i, 10)
		store(t, c, p)
		requireLoaded(t, c, p)
	}
	require.Positive(t, w.current("larder_nvme_errors_total", `kind="unavailable"`))
	for i := range uint64(20) {
		p := workload.NewPrompt(5000+i, 10)
		store(t, c, p)
		requireLoaded(t, c, p)
	}

	restart(t, d, c)
	require.Zero(t, w.current("larder_nvme_off"), "there is a disk again")
	before := promoted()
	for until := time.Now().Add(2 * patience); promoted() == before; {
		require.True(t, time.Now().Before(until), "nothing comes from the disk after a restart")
		for i := range uint64(12) {
			p := workload.NewPrompt(9000+i, 10)
			store(t, c, p)
			got, err := load(t.Context(), c, p)
			require.NoError(t, err)
			require.Zero(t, got.wrong)
		}
		for i := range uint64(12) {
			got, err := load(t.Context(), c, workload.NewPrompt(9000+i, 10))
			require.NoError(t, err)
			require.Zero(t, got.wrong)
		}
	}
}
