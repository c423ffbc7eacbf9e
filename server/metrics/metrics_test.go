package metrics

import (
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiered"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sources() Sources {
	device := func(path string, s nvme.Stats) Device {
		return Device{Path: path, Stats: func() nvme.Stats { return s }}
	}
	sound := nvme.Stats{Hits: 9}
	sound.Segments.Budget = 50
	return Sources{
		NVMe: &NVMe{
			Devices: []Device{device("/a", sound), device("/b", nvme.Stats{Off: true, Why: "gone"})},
			Workers: func() Workers { return Workers{Promoter: tiered.PromoterStats{Chunks: 2}} },
		},
		Host:     func() arena.Stats { return arena.Stats{Budget: 100, Used: 42, CorruptParts: 3, EvictedChunks: 7} },
		Sessions: func() (int, int) { return 5, 2 },
		Lanes:    func() int { return 4 },
		Ahead:    func() (int64, uint64) { return 1 << 30, 7 },
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
	m.Skipped(12, 28)
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
		`larder_skipped_chunks_total{tier="host"} 12`, `larder_skipped_chunks_total{tier="nvme"} 28`,
		"larder_sessions 5", "larder_session_lanes 4", "larder_sessions_quarantined 2", `larder_build_info{version="1.2.3"} 1`,
		"larder_host_budget_bytes 100", `larder_host_bytes{state="used"} 42`, "larder_host_parts_corrupt_total 3",
		`larder_host_chunks_dropped_total{reason="evicted"} 7`,
		"larder_host_granted_limit_bytes 1.073741824e+09", "larder_host_grants_short_total 7",
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
		// What is about a device is there once for each of the two.
		most := 8
		if hasLabel(f.GetMetric()[0], "device") {
			most *= 2
		}
		require.LessOrEqual(t, len(f.GetMetric()), most, f.GetName())
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				require.Contains(t, []string{"kind", "state", "reason", "outcome", "direction", "version", "why", "what", "device", "tier"}, l.GetName())
			}
			if h := m.GetHistogram(); h != nil {
				require.NotNil(t, h.Schema, f.GetName())
				native++
			}
		}
	}
	require.Equal(t, 3+1+2*3, native)
}

func hasLabel(m *dto.Metric, name string) bool {
	return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == name })
}

// A metric without a word about what to do is one that nobody can use. These say
// it in their names, or with those beside them.
func TestDocumented(t *testing.T) {
	_, r := New(sources())
	families, err := r.Gather()
	require.NoError(t, err)
	seen := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "larder_nvme_") && !strings.HasPrefix(f.GetName(), "larder_codec_") {
			continue
		}
		seen++
		require.Regexp(t, `[;:,.] \S`, f.GetHelp(), "%s only says what it is", f.GetName())
		require.True(t, strings.HasSuffix(f.GetHelp(), "."), f.GetName())
	}
	require.Greater(t, seen, 20)
}

// Each device has its own series, and those of the workers are there once.
func TestDevices(t *testing.T) {
	m, r := New(sources())
	m.Device("/a").Read(time.Millisecond)
	m.Device("/b").Wrote(time.Millisecond)
	m.Device("/b").Synced(time.Millisecond)
	m.Device("/none").Read(time.Millisecond) // forgotten
	m.Promoted(time.Second)
	s, err := Serve("127.0.0.1:0", r)
	require.NoError(t, err)
	text := scrape(t, "http://"+s.Addr()+"/metrics")
	require.NoError(t, s.Close())
	for _, line := range []string{
		`larder_nvme_off{device="/a"} 0`, `larder_nvme_off{device="/b"} 1`,
		`larder_nvme_gets_total{device="/a",outcome="hit"} 9`, `larder_nvme_bytes{device="/a",state="budget"} 50`,
		`larder_nvme_read_seconds_count{device="/a"} 1`, `larder_nvme_read_seconds_count{device="/b"} 0`,
		`larder_nvme_write_seconds_count{device="/b"} 1`, `larder_nvme_sync_seconds_sum{device="/b"} 0.001`,
		`larder_nvme_promotion_seconds_count 1`, `larder_nvme_promotions_total{outcome="done"} 2`,
	} {
		require.Contains(t, text, line+"\n")
	}
}

// Without the tier nothing of it is shown, and what is told about it forgotten.
func TestNoDevices(t *testing.T) {
	s := sources()
	s.NVMe = nil
	m, r := New(s)
	m.Device("/a").Read(time.Millisecond)
	m.Promoted(time.Second)
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		require.NotContains(t, f.GetName(), "nvme")
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		_, err := Serve(addr, prometheus.NewRegistry())
		require.ErrorContains(t, err, "loopback", addr)
	}
	_, err := Serve("nonsense", prometheus.NewRegistry())
	require.Error(t, err)
}

// fill sets every number to another one, and every flag.
func fill(v reflect.Value, next *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		*next++
		v.SetInt(int64(*next))
	case reflect.Uint64:
		*next++
		v.SetUint(uint64(*next))
	}
}

// Every series of the tier shows a figure of its own: none is forgotten, and no
// two show the same.
func TestEverySeriesMoves(t *testing.T) {
	next := 1 // what a flag shows
	var stats nvme.Stats
	fill(reflect.ValueOf(&stats).Elem(), &next)
	var workers Workers
	fill(reflect.ValueOf(&workers).Elem(), &next)
	var used BasisStats
	fill(reflect.ValueOf(&used).Elem(), &next)
	s := sources()
	s.NVMe = &NVMe{
		Devices: []Device{{Path: "/a", Stats: func() nvme.Stats { return stats }}},
		Bases:   []Basis{{Name: "0123", Unit: "part", Stats: func() BasisStats { return used }}},
		Workers: func() Workers { return workers },
	}
	m, r := New(s)
	m.Promoted(time.Second)
	for _, observe := range []func(time.Duration){m.Device("/a").Read, m.Device("/a").Wrote, m.Device("/a").Synced} {
		observe(time.Second)
	}
	families, err := r.Gather()
	require.NoError(t, err)
	seen := map[float64]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "larder_nvme_") && !strings.HasPrefix(f.GetName(), "larder_codec_") {
			continue
		}
		for _, x := range f.GetMetric() {
			v := x.GetGauge().GetValue() + x.GetCounter().GetValue() + float64(x.GetHistogram().GetSampleCount())
			require.NotZero(t, v, "%s %v", f.GetName(), x.GetLabel())
			if v != 1 {
				require.Empty(t, seen[v], "%s %v shows the same", f.GetName(), x.GetLabel())
				seen[v] = f.GetName()
			}
		}
	}
	require.Greater(t, len(seen), 50)
}
