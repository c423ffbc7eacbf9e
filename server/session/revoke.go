package session

import (
	"context"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Run keeps deadlines until ctx ends: it revokes, closes sessions that do not
// answer, and ends holds. It is the only place that does, and never waits for
// a client.
func (v *Service) Run(ctx context.Context) {
	limits := &v.options.Limits
	// A tenth of the shortest promise is late enough to be cheap and early
	// enough to be kept.
	tick := min(max(min(limits.Lease, limits.RevokeGrace, limits.HoldDefault)/10, time.Millisecond), 100*time.Millisecond)
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			v.Tick()
		}
	}
}

// Tick does once what Run does all the time.
func (v *Service) Tick() {
	now := v.options.Clock.MonotonicNanos()
	v.options.Directory.Expire(now)
	for _, r := range v.options.Arena.Expire(now) {
		if s := v.find(uint64(r.Owner)); s != nil {
			s.events.post(func(p *pending) {
				if p.revoke == nil {
					p.revoke = &larderv1.Revoke{}
				}
				for _, slot := range r.Grants {
					p.revoke.Grants = append(p.revoke.Grants, slotProto(slot))
				}
				p.revoke.LoadIds = append(p.revoke.LoadIds, r.Loads...)
			})
		}
	}
	for _, o := range v.options.Arena.Overdue(now) {
		if s := v.find(uint64(o)); s != nil {
			v.options.Logger.Warn("session closed: a revoke was not answered; its slots are in quarantine until the process is gone",
				"session", s.id, "caller", s.peer.String(), "grace", v.options.Limits.RevokeGrace)
			s.kill(fault.New(fault.Unavailable, "revoke", "a revoke was not answered in time").With(nil, v.options.Limits.RevokeGrace))
		}
	}
}

func (v *Service) find(id uint64) *session {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sessions[id]
}

func (s *session) revokeAnswer(id uint64, r *larderv1.RevokeAnswer) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	slots := slotsOf(r.GetGrants())
	loads := make([]uint64, 0, len(r.GetLoadIds()))
	for _, l := range r.GetLoadIds() {
		// A load that still runs ends itself, after its last lease.
		if s.endLoad(l) {
			loads = append(loads, l)
		}
	}
	s.service.options.Arena.AnswerRevoke(s.owner(), slots, loads)
	s.spent(slots...)
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_RevokeAnswer{RevokeAnswer: &larderv1.RevokeAnswerReply{}}})
	return nil
}
