package metrics

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/arena"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sources() Sources {
	return Sources{
		Host:     func() arena.Stats { return arena.Stats{Budget: 100, Used: 42, CorruptParts: 3, EvictedChunks: 7} },
		Sessions: func() (int, int) { return 5, 2 },
		Lanes:    func() int { return 4 },
		Version:  "1.2.3",
	}
}

func scrape(t *testing.T, url string) string {
	r, err := http.Get(url)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, http.StatusOK, r.StatusCode)
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	return string(b)
}

func TestScrape(t *testing.T) {
	m, r := New(sources())
	m.Matched(time.Millisecond, 10, 4)
	m.Matched(time.Millisecond, 10, 5)
	m.Loaded(time.Second, 3, 1, 300)
	m.Committed(time.Second, 2, 200)
	m.Streamed(11, 12)
	m.Sent(2, 60)
	m.Said(fault.Busy)
	m.Said(fault.Kind(0))
	m.Said(fault.Kind(200))
	m.Refused()
	require.Equal(t, Counters{MatchRequests: 2, MatchAsked: 20, MatchHit: 9, LoadedParts: 5, LoadedBytes: 360}, m.Counters())

	s, err := Serve("127.0.0.1:0", r)
	require.NoError(t, err)
	text := scrape(t, "http://"+s.Addr()+"/metrics")
	for _, line := range []string{
		"larder_match_requests_total 2", "larder_match_chunks_asked_total 20", "larder_match_chunks_hit_total 9",
		"larder_match_seconds_count 2", "larder_load_seconds_count 1", "larder_commit_seconds_sum 1",
		"larder_loaded_bytes_total 360", "larder_load_failed_parts_total 1", "larder_committed_bytes_total 200",
		`larder_streamed_bytes_total{direction="in"} 11`, `larder_streamed_bytes_total{direction="out"} 12`,
		`larder_errors_total{kind="busy"} 1`, `larder_errors_total{kind="miss"} 0`, "larder_connections_refused_total 1",
		"larder_sessions 5", "larder_session_lanes 4", "larder_sessions_quarantined 2", `larder_build_info{version="1.2.3"} 1`,
		"larder_host_budget_bytes 100", `larder_host_bytes{state="used"} 42`, "larder_host_parts_corrupt_total 3",
		`larder_host_chunks_dropped_total{reason="evicted"} 7`,
	} {
		require.Contains(t, text, line+"\n")
	}
	r2, err := http.Get("http://" + s.Addr() + "/debug/pprof/")
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, r2.StatusCode)
	require.NoError(t, r2.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, s.Close())
}

// Every metric of ours has a help text, and labels with few fixed values.
func TestHelpAndLabels(t *testing.T) {
	_, r := New(sources())
	families, err := r.Gather()
	require.NoError(t, err)
	native := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "larder_") {
			continue
		}
		require.NotEmpty(t, f.GetHelp(), f.GetName())
		require.LessOrEqual(t, len(f.GetMetric()), 8, f.GetName())
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				require.Contains(t, []string{"kind", "state", "reason", "outcome", "direction", "version"}, l.GetName())
			}
			if h := m.GetHistogram(); h != nil {
				require.NotNil(t, h.Schema, f.GetName())
				native++
			}
		}
	}
	require.Equal(t, 3, native)
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		_, err := Serve(addr, prometheus.NewRegistry())
		require.ErrorContains(t, err, "loopback", addr)
	}
	_, err := Serve("nonsense", prometheus.NewRegistry())
	require.Error(t, err)
}
