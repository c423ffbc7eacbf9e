package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/api/fault"
)

// Meter counts what sessions and streams do. Its zero value is not usable; see
// New.
type Meter struct {
	matchRequests, matchAsked, matchHit    atomic.Uint64
	loadedParts, loadedBytes, failedParts  atomic.Uint64
	committedParts, committedBytes         atomic.Uint64
	skippedHost, skippedNVMe               atomic.Uint64
	streamedIn, streamedOut, refusedByFile atomic.Uint64
	said                                   [fault.Denied + 1]atomic.Uint64
	matches, loads, commits                prometheus.Histogram
	nvme                                   *nvmeMeter // nil where there is no such tier
}

// histogram is native, with classic buckets for servers that do not read
// native ones.
func histogram(name, help string, classic []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: classic,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	})
}

func newMeter() *Meter {
	return &Meter{
		matches: histogram("larder_match_seconds",
			"Time to answer a match, without the socket. Above a millisecond the host is short of CPU: give larderd a core.",
			[]float64{20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3}),
		loads: histogram("larder_load_seconds",
			"Time from a load's request until all of its parts are reported, verification included. It grows with the bytes; if it does for equal loads, memory bandwidth or CPU is short.",
			[]float64{100e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2}),
		commits: histogram("larder_commit_seconds",
			"Time from a commit's request to its answer, checksums included. It grows with the bytes; if it does for equal commits, memory bandwidth or CPU is short.",
			[]float64{100e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2}),
	}
}

// Matched counts a match.
func (m *Meter) Matched(took time.Duration, asked, hit int) {
	m.matchRequests.Add(1)
	m.matchAsked.Add(uint64(asked))
	m.matchHit.Add(uint64(hit))
	m.matches.Observe(took.Seconds())
}

// Loaded counts a load: parts reported ready, their bytes, and parts that
// failed.
func (m *Meter) Loaded(took time.Duration, parts, failed int, bytes int64) {
	m.loadedParts.Add(uint64(parts))
	m.loadedBytes.Add(uint64(bytes))
	m.failedParts.Add(uint64(failed))
	m.loads.Observe(took.Seconds())
}

// Committed counts a commit: parts that were not rejected and their bytes.
func (m *Meter) Committed(took time.Duration, parts int, bytes int64) {
	m.committedParts.Add(uint64(parts))
	m.committedBytes.Add(uint64(bytes))
	m.commits.Observe(took.Seconds())
}

// Skipped counts chunks that engines computed though they could load them.
func (m *Meter) Skipped(host, nvme int) {
	m.skippedHost.Add(uint64(host))
	m.skippedNVMe.Add(uint64(nvme))
}

// Streamed counts bytes of Objects, from and to clients.
func (m *Meter) Streamed(in, out int64) {
	m.streamedIn.Add(uint64(in))
	m.streamedOut.Add(uint64(out))
}

// Sent counts parts that left through Objects: loads without shared memory.
func (m *Meter) Sent(parts int, bytes int64) {
	m.loadedParts.Add(uint64(parts))
	m.loadedBytes.Add(uint64(bytes))
}

// Said counts an error that was answered.
func (m *Meter) Said(k fault.Kind) {
	if k.Valid() {
		m.said[k].Add(1)
	}
}

// Refused counts a connection that the limit of open files refused.
func (m *Meter) Refused() { m.refusedByFile.Add(1) }

// Counters are the figures that Admin.Status shows beside the arena's.
type Counters struct{ MatchRequests, MatchAsked, MatchHit, LoadedParts, LoadedBytes uint64 }

// Counters reads them.
func (m *Meter) Counters() Counters {
	return Counters{
		MatchRequests: m.matchRequests.Load(), MatchAsked: m.matchAsked.Load(), MatchHit: m.matchHit.Load(),
		LoadedParts: m.loadedParts.Load(), LoadedBytes: m.loadedBytes.Load(),
	}
}
