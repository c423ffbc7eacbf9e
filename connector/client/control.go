package client

import (
	"context"
	"sync"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// control collects what the session itself has to tell the daemon: answers to
// revokes, ends of holds, unused grants. None of it may be lost while the
// session lives, and nobody waits for it, so it is merged here and sent one
// message at a time. Its size is bounded by what the daemon granted.
type control struct {
	// ready has a value while take may have something to return.
	ready chan struct{}

	// limit is the number of slots or loads that one message may name, maxHolds
	// that of holds that can be alive.
	limit, maxHolds int

	mu     sync.Mutex
	idle   chan struct{} // closed when everything is answered; nil: nobody waits
	busy   bool
	revoke struct {
		Grants  []*larderv1.Slot
		LoadIds []uint64
	}
	holds  []uint64
	unused []*larderv1.Slot
}

func (c *control) init(limit, holds int) {
	c.ready = make(chan struct{}, 1)
	c.limit, c.maxHolds = max(limit, 1), max(holds, 1)
}

func (c *control) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *control) answerRevoke(slots []*larderv1.Slot, loads ...uint64) {
	if len(slots) == 0 && len(loads) == 0 {
		return
	}
	c.mu.Lock()
	c.revoke.Grants = append(c.revoke.Grants, slots...)
	c.revoke.LoadIds = append(c.revoke.LoadIds, loads...)
	c.mu.Unlock()
	c.signal()
}

func (c *control) endHolds(ids ...uint64) {
	c.mu.Lock()
	c.holds = append(c.holds, ids...)
	if n := len(c.holds); n > c.maxHolds {
		c.holds = append(c.holds[:0], c.holds[n-c.maxHolds:]...)
	}
	c.mu.Unlock()
	c.signal()
}

func (c *control) returnUnused(slots ...*larderv1.Slot) {
	if len(slots) == 0 {
		return
	}
	c.mu.Lock()
	c.unused = append(c.unused, slots...)
	c.mu.Unlock()
	c.signal()
}

// take returns the next message to send, or nil where there is none or the
// last one is not answered yet.
func (c *control) take() *larderv1.SessionRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return nil
	}
	m := &larderv1.SessionRequest{}
	switch {
	case len(c.revoke.Grants) > 0 || len(c.revoke.LoadIds) > 0:
		m.Body = &larderv1.SessionRequest_RevokeAnswer{RevokeAnswer: &larderv1.RevokeAnswer{
			Grants: cut(&c.revoke.Grants, c.limit), LoadIds: cut(&c.revoke.LoadIds, c.limit),
		}}
	case len(c.unused) > 0:
		m.Body = &larderv1.SessionRequest_ReturnCredits{ReturnCredits: &larderv1.ReturnCredits{Slots: cut(&c.unused, c.limit)}}
	case len(c.holds) > 0:
		m.Body = &larderv1.SessionRequest_EndHolds{EndHolds: &larderv1.EndHolds{HoldIds: cut(&c.holds, c.limit)}}
	default:
		return nil
	}
	c.busy = true
	return m
}

// answered lets the next message go.
func (c *control) answered() {
	c.mu.Lock()
	c.busy = false
	if c.idle != nil && c.empty() {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
	c.signal()
}

// flush waits until the daemon has answered everything.
func (c *control) flush(ctx context.Context, ended <-chan struct{}) {
	c.mu.Lock()
	if !c.busy && c.empty() {
		c.mu.Unlock()
		return
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	case <-ended:
	}
}

func (c *control) empty() bool {
	return len(c.revoke.Grants)+len(c.revoke.LoadIds)+len(c.unused)+len(c.holds) == 0
}

// cut takes at most n of the first elements of *s.
func cut[T any](s *[]T, n int) []T {
	n = min(n, len(*s))
	head := (*s)[:n:n]
	*s = (*s)[n:]
	if len(*s) == 0 {
		*s = nil
	}
	return head
}
