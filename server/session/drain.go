package session

import (
	"context"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

const (
	drainTick = 50 * time.Millisecond
	// drainIdle is how many ticks a session may do nothing before a drain ends
	// it. Clients that know of drains leave by themselves, sooner.
	drainIdle = 5
)

// Drain takes no more sessions, tells those open that the daemon stops, and
// waits until all have ended or ctx has. Loads and commits that were begun may
// end; a session without any is ended, whatever credits it has: a store that
// does not come costs a later recompute, no more.
func (v *Service) Drain(ctx context.Context) {
	v.mu.Lock()
	v.draining = true
	v.mu.Unlock()
	var left time.Duration
	if at, ok := ctx.Deadline(); ok {
		left = max(0, time.Until(at))
	}
	for _, s := range v.snapshot() {
		s.events.post(func(e *pending) {
			e.draining = &larderv1.Draining{DeadlineMs: uint32(left.Milliseconds())}
		})
	}
	t := time.NewTicker(drainTick)
	defer t.Stop()
	idle := map[*session]int{}
	for {
		list := v.snapshot()
		if len(list) == 0 {
			return
		}
		select {
		case <-v.quiet:
			continue
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, s := range list {
			if s.busy() {
				delete(idle, s)
			} else if idle[s]++; idle[s] >= drainIdle {
				s.kill(fault.New(fault.Unavailable, "", "the daemon is stopping"))
			}
		}
	}
}

// busy says whether the session has a load or commit that did not end.
func (s *session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.loads) > 0 || s.inFlight.Load() > 0
}
