package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/arena"
)

// Sources are read on every scrape.
type Sources struct {
	Host func() arena.Stats
	// NVMe is nil where there is no such tier.
	NVMe *NVMe
	// Sessions open, and in quarantine.
	Sessions func() (open, quarantined int)
	// Lanes counts sessions whose messages go over a lane.
	Lanes func() int
	// Ahead is how many bytes sessions may have granted, 0 for no bound, and how
	// many requests got fewer slots than they asked for.
	Ahead   func() (limit int64, short uint64)
	Version string
}

// New makes a meter and a registry that shows it, the sources, and the
// process.
func New(s Sources) (*Meter, *prometheus.Registry) {
	m, r := newMeter(), prometheus.NewRegistry()
	r.MustRegister(m.matches, m.loads, m.commits, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector[arena.Stats]{s.Host, hostMetrics()})
	if s.NVMe != nil {
		m.nvme = registerNVMe(r, s.NVMe)
	}
	counter := func(name, help string, labels prometheus.Labels, v *atomic.Uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, read func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	counter("larder_match_requests_total",
		"Matches answered. None while engines serve: the connector is not connected; see the engine's log.", nil, &m.matchRequests)
	counter("larder_match_chunks_asked_total",
		"Chunks asked for by matches. With the chunks hit it gives the hit rate.", nil, &m.matchAsked)
	counter("larder_match_chunks_hit_total",
		"Chunks that matches found. A low share of those asked: larder explain says why; more host.bytes helps if chunks are evicted.", nil, &m.matchHit)
	counter("larder_loaded_parts_total", "Parts reported ready to engines, or sent to those without shared memory, checked as host.verify says.", nil, &m.loadedParts)
	counter("larder_loaded_bytes_total", "Bytes of those parts.", nil, &m.loadedBytes)
	counter("larder_load_failed_parts_total",
		"Parts of loads that were gone or damaged when they were wanted; engines recompute them. If it grows, see larder_host_parts_corrupt_total and the hold times.", nil, &m.failedParts)
	for tier, n := range map[string]*atomic.Uint64{"host": &m.skippedHost, "nvme": &m.skippedNVMe} {
		counter("larder_skipped_chunks_total",
			"Chunks that engines computed themselves since loading them from the tier was expected to take longer; larder explain shows both times. Many from nvme: the drive is slow or busy, see larder_nvme_load_expected_seconds; many from host: the engine's copies are slow, or its model is so small that nothing is gained.",
			prometheus.Labels{"tier": tier}, n)
	}
	counter("larder_committed_parts_total", "Parts taken over from engines, duplicates included.", nil, &m.committedParts)
	counter("larder_committed_bytes_total", "Bytes of those parts.", nil, &m.committedBytes)
	counter("larder_streamed_bytes_total",
		"Bytes through Objects. On one host engines should share memory instead: see larderd's log for why they do not.", prometheus.Labels{"direction": "in"}, &m.streamedIn)
	counter("larder_streamed_bytes_total",
		"Bytes through Objects. On one host engines should share memory instead: see larderd's log for why they do not.", prometheus.Labels{"direction": "out"}, &m.streamedOut)
	counter("larder_connections_refused_total",
		"Connections refused at the limit of open files. If it grows, raise LimitNOFILE.", nil, &m.refusedByFile)
	for k := fault.Miss; k.Valid(); k++ {
		counter("larder_errors_total",
			"Errors answered, by kind. miss is normal; busy and full: too little room or too much at once; corrupt: check the memory; invalid and denied: see the clients' logs.",
			prometheus.Labels{"kind": k.String()}, &m.said[k])
	}
	gauge("larder_sessions", "Sessions open: engine processes and tools; larder status lists them. Fewer than engines run: see their logs.", func() float64 {
		open, _ := s.Sessions()
		return float64(open)
	})
	gauge("larder_session_lanes",
		"Sessions whose messages go over a plain Unix socket instead of gRPC. Fewer than those of Python engines on this host: the engines' logs say why; they are slower.",
		func() float64 { return float64(s.Lanes()) })
	gauge("larder_host_granted_limit_bytes",
		"Bytes that all sessions together may have granted (host.granted_percent of host.bytes); 0 in mode guarded. If larder_host_bytes{state=\"granted\"} stays at it, each engine has less than it wants.",
		func() float64 {
			limit, _ := s.Ahead()
			return float64(limit)
		})
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "larder_host_grants_short_total",
		Help: "Requests for slots that got fewer than they asked for, or none; larder status shows whose. A few as engines start: they are told what they may have. If it grows: raise host.granted_percent, or host.bytes where larder_host_grants_full_total grows too.",
	}, func() float64 {
		_, short := s.Ahead()
		return float64(short)
	}))
	gauge("larder_sessions_quarantined",
		"Sessions that ended while their process may still touch slots. If it stays, a process hangs: larderd's log names its pid, ending it frees its slots.",
		func() float64 {
			_, q := s.Sessions()
			return float64(q)
		})
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_build_info", Help: "Always 1; the version is a label.", ConstLabels: prometheus.Labels{"version": s.Version},
	}, func() float64 { return 1 }))
	return m, r
}
