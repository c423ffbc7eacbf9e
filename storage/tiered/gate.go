package tiered

import (
	"context"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
)

// Gate keeps copies apart from removals of the same chunks, so that no copy brings
// back what was removed from several tiers. A removal waits for the copies at
// work of what it removes, and of nothing else; copies never wait: until the
// removal is over, what it removes is a miss. So a device that hangs holds up the
// removal of what is copied from it or to it, and nobody's copies. The zero value
// is ready.
//
// A lock that copies share was rejected: one copy that hangs kept a removal
// waiting, and that all other copies.
type Gate struct {
	mu       sync.Mutex
	copies   map[*copying]struct{}
	removals map[*removal]struct{}
}

// copying is a copy at work; done is closed when it ends.
type copying struct {
	scope storage.Scope
	key   keys.Key
	done  chan struct{}
}

// removal is one at work, of the chunks for which which says yes.
type removal struct {
	which func(storage.Scope, keys.Key) bool
}

// removeTimeout bounds how long a removal waits for copies, whatever its context
// allows: longer than a promotion may take.
const removeTimeout = 30 * time.Second

// Remove runs f while no chunk is copied for which which says yes; it is asked
// under a lock and must not block.
//
// Unavailable: copies at work did not end in time, and f was not run.
func (g *Gate) Remove(ctx context.Context, which func(storage.Scope, keys.Key) bool, f func() error) error {
	r := &removal{which}
	wait := g.begin(r)
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.removals, r)
	}()
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	for i, done := range wait {
		select {
		case <-done:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "remove", "nothing was removed: a chunk of it is being copied and the device does not answer").
				With(len(wait)-i, 0)
		}
	}
	return f()
}

// begin lets no new copy of what is removed begin, and returns those at work.
func (g *Gate) begin(r *removal) (wait []chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removals == nil {
		g.removals = map[*removal]struct{}{}
	}
	g.removals[r] = struct{}{}
	for c := range g.copies {
		if r.which(c.scope, c.key) {
			wait = append(wait, c.done)
		}
	}
	return wait
}

// enter begins a copy; the caller calls leave when it has ended. Miss: the chunk is
// being removed.
func (g *Gate) enter(c *Chunk) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r := range g.removals {
		if r.which(c.Scope, c.Key) {
			return nil, fault.New(fault.Miss, "copy", "the chunk is being removed")
		}
	}
	if g.copies == nil {
		g.copies = map[*copying]struct{}{}
	}
	n := &copying{c.Scope, c.Key, make(chan struct{})}
	g.copies[n] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.copies, n)
		close(n.done)
	}, nil
}
