package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/test/daemon"
)

// scrape reads all metrics, by name and labels.
func scrape(ctx context.Context, address string) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	// A connection of its own, which ends with the answer.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		at := bytes.LastIndexByte(lines.Bytes(), ' ')
		if at < 0 || lines.Text()[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		out[lines.Text()[:at]] = v
	}
	return out, lines.Err()
}

// diskBytes is what the segments in the directory have taken from the disk.
func diskBytes(t *testing.T, dir string) (n int64) {
	names, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	require.NoError(t, err)
	for _, name := range names {
		info, err := os.Stat(name)
		if os.IsNotExist(err) {
			continue // dropped meanwhile
		}
		require.NoError(t, err)
		n += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

// watcher looks at a daemon again and again: what it counts, over all of its
// lives, and the most that it has used.
type watcher struct {
	t       *testing.T
	d       *daemon.Daemon
	address string
	// dir is that of the disk.
	dir string

	mu sync.Mutex
	// sums of the counters of lives that have ended, and those of this life.
	sums, now map[string]float64
	// The most of memory (without the arena) and of disk.
	memory, disk int64
	looks        int
}

func newWatcher(t *testing.T, d *daemon.Daemon, address, dir string) *watcher {
	return &watcher{t: t, d: d, address: address, dir: dir, sums: map[string]float64{}}
}

// look says whether the daemon could be looked at.
func (w *watcher) look(ctx context.Context) bool {
	got, err := scrape(ctx, w.address)
	if err != nil {
		return false // it is being restarted
	}
	m, err := w.d.Memory()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = got
	w.disk = max(w.disk, diskBytes(w.t, w.dir))
	w.looks++
	if err == nil {
		w.memory = max(w.memory, m.Private)
	}
	return true
}

// ended notes that the daemon's life is over.
func (w *watcher) ended() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, v := range w.now {
		w.sums[k] += v
	}
	w.now = nil
}

// total of a counter over all series that have the label (name="value").
func (w *watcher) total(name string, label ...string) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return sumSeries(w.sums, name, label) + sumSeries(w.now, name, label)
}

// current value of a gauge, or of a counter in this life, likewise.
func (w *watcher) current(name string, label ...string) float64 {
	// What was seen of an earlier life does not count.
	require.Eventually(w.t, func() bool { return w.look(w.t.Context()) }, patience, time.Millisecond, "no metrics")
	w.mu.Lock()
	defer w.mu.Unlock()
	return sumSeries(w.now, name, label)
}

func sumSeries(all map[string]float64, name string, label []string) (sum float64) {
	for k, v := range all {
		if at := bytes.IndexByte([]byte(k), '{'); at >= 0 && k[:at] == name && (len(label) == 0 || bytes.Contains([]byte(k[at:]), []byte(label[0]))) || k == name {
			sum += v
		}
	}
	return sum
}

// watch looks until ctx ends.
func (w *watcher) watch(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx)
		}
	}
}
