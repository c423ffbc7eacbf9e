package client

import (
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
)

// Stats are counts since the client was made.
type Stats struct {
	Matches, Loads, LoadedParts, LoadedBytes int64
	// Bytes and parts that the daemon took, published or kept.
	StoredParts, StoredBytes int64
	// Commits by outcome, in parts.
	Kept, Published, Duplicates, Conflicts, Rejected int64
	Revokes, SessionsEnded, BreakerOpens             int64
	// Failed calls by kind.
	Failures map[string]int64
}

type counters struct {
	matches, loads, loadedParts, loadedBytes         atomic.Int64
	storedParts, storedBytes                         atomic.Int64
	kept, published, duplicates, conflicts, rejected atomic.Int64
	revokes, sessionsEnded                           atomic.Int64
	failures                                         [fault.Denied + 1]atomic.Int64
}

func (c *counters) failed(err error) {
	if k, ok := fault.KindOf(err); ok && k.Valid() {
		c.failures[k].Add(1)
	}
}

// Stats returns a snapshot.
func (c *Client) Stats() Stats {
	n := &c.stats
	s := Stats{
		Matches:       n.matches.Load(),
		Loads:         n.loads.Load(),
		LoadedParts:   n.loadedParts.Load(),
		LoadedBytes:   n.loadedBytes.Load(),
		StoredParts:   n.storedParts.Load(),
		StoredBytes:   n.storedBytes.Load(),
		Kept:          n.kept.Load(),
		Published:     n.published.Load(),
		Duplicates:    n.duplicates.Load(),
		Conflicts:     n.conflicts.Load(),
		Rejected:      n.rejected.Load(),
		Revokes:       n.revokes.Load(),
		SessionsEnded: n.sessionsEnded.Load(),
		BreakerOpens:  c.breaker.opened(),
		Failures:      make(map[string]int64),
	}
	for k := fault.Miss; k <= fault.Denied; k++ {
		if v := n.failures[k].Load(); v > 0 {
			s.Failures[k.String()] = v
		}
	}
	return s
}
