package session

import (
	"sync"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// pending are the events that wait to be sent. Events merge instead of
// queueing, so a client that does not read costs no more than what it holds.
type pending struct {
	revoke   *larderv1.Revoke
	draining *larderv1.Draining
	epoch    *larderv1.EpochChanged
}

type events struct {
	mu     sync.Mutex
	next   pending
	signal chan struct{}
}

func newEvents() *events { return &events{signal: make(chan struct{}, 1)} }

// post never blocks.
func (e *events) post(change func(*pending)) {
	e.mu.Lock()
	change(&e.next)
	e.mu.Unlock()
	select {
	case e.signal <- struct{}{}:
	default:
	}
}

func (e *events) take() pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.next
	e.next = pending{}
	return p
}

// sendEvents sends until the session ends.
func (s *session) sendEvents() {
	for {
		select {
		case <-s.events.signal:
		case <-s.ctx.Done():
			return
		}
		p := s.events.take()
		if p.epoch != nil {
			s.reply(0, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_EpochChanged{EpochChanged: p.epoch}})
		}
		if p.revoke != nil {
			s.reply(0, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: p.revoke}})
		}
		if p.draining != nil {
			s.reply(0, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Draining{Draining: p.draining}})
		}
	}
}

// checkEpoch tells the client if its namespace was cleared.
func (s *session) checkEpoch() {
	if !s.ready.Load() || s.namespace == nil {
		return
	}
	now := s.service.options.Arena.Epoch(s.scope)
	if s.epoch.Swap(now) != now {
		s.events.post(func(p *pending) { p.epoch = &larderv1.EpochChanged{Epoch: now} })
	}
}
