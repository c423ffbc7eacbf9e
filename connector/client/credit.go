package client

import (
	"context"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// slotID names one slot at one moment of its life.
type slotID struct {
	segment, generation uint32
	offset              uint64
}

func idOf(s *larderv1.Slot) slotID {
	return slotID{segment: s.GetSegment(), generation: s.GetGeneration(), offset: s.GetOffset()}
}

// Credit is a granted slot: the right to write a part into the arena until the
// daemon revokes it.
type Credit struct {
	s        *session
	slot     *larderv1.Slot
	length   uint64
	deadline int64

	mu      sync.Mutex
	state   creditState
	writing bool
}

type creditState uint8

const (
	creditFree    creditState = iota // may be written and committed
	creditSpent                      // commit or return is on its way, or was answered
	creditRevoked                    // the deadline passed, or the session ended
)

// Length is the number of bytes that the slot was asked for.
func (cr *Credit) Length() uint64 { return cr.length }

// Write runs fn on the slot's bytes: a section in which the slot is not
// reused, whatever happens. It fails with fault.Miss if the credit was revoked
// before, and also if it was revoked meanwhile: then the slot must not be
// committed.
func (cr *Credit) Write(fn func(dst []byte)) error {
	cr.mu.Lock()
	if cr.state != creditFree || cr.writing {
		defer cr.mu.Unlock()
		return cr.refusal()
	}
	if !cr.s.mem.enter() {
		cr.mu.Unlock()
		return fault.New(fault.Miss, "", "the session of the credit has ended")
	}
	cr.writing = true
	cr.mu.Unlock()
	defer cr.endWrite()
	view, err := cr.s.mem.view(cr.slot, cr.length)
	if err != nil {
		return err
	}
	fn(view)
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.state != creditFree {
		return cr.refusal()
	}
	return nil
}

func (cr *Credit) endWrite() {
	cr.mu.Lock()
	cr.writing = false
	answer := cr.state == creditRevoked
	cr.mu.Unlock()
	cr.s.mem.leave()
	if answer {
		cr.s.ctl.answerRevoke([]*larderv1.Slot{cr.slot})
	}
}

// refusal says why the credit is of no use; the caller holds cr.mu.
func (cr *Credit) refusal() error {
	switch cr.state {
	case creditRevoked:
		return fault.New(fault.Miss, "", "the credit was revoked: its deadline passed or the session ended")
	case creditSpent:
		return fault.New(fault.Invalid, "commit.slot", "the credit was committed or returned before")
	case creditFree:
	}
	return fault.New(fault.Invalid, "commit.slot", "the credit is being written")
}

// spend ends the client's right to write, before the daemon is told.
func (cr *Credit) spend() error {
	cr.mu.Lock()
	if cr.state != creditFree || cr.writing {
		defer cr.mu.Unlock()
		return cr.refusal()
	}
	cr.state = creditSpent
	cr.mu.Unlock()
	cr.s.forget(cr)
	return nil
}

// revoke takes the credit away; true if the revoke can be answered at once.
func (cr *Credit) revoke() bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.state = creditRevoked
	return !cr.writing
}

// kill is revoke for a session that has ended: there is nobody to answer.
func (cr *Credit) kill() { cr.revoke() }

// fresh reports whether the credit can still be written and committed before
// its deadline, with some time to spare.
func (cr *Credit) fresh(now int64) bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.state == creditFree && cr.deadline-now > int64(50*time.Millisecond)
}

func (s *session) forget(cr *Credit) {
	s.mu.Lock()
	delete(s.credits, idOf(cr.slot))
	s.mu.Unlock()
}

// adopt turns a reply into credits. It runs on the receiving goroutine, so
// that a revoke that follows finds them. Each request asks for one length:
// where fewer are granted than wanted, nothing says which are missing.
func (s *session) adopt(length uint64, reply *larderv1.CreditsReply) []*Credit {
	granted := reply.GetGranted()
	if reply != nil { // else an error was answered
		s.c.pool.limit.Store(reply.GetLimitBytes())
	}
	credits := make([]*Credit, 0, len(granted))
	room := make([]Credit, len(granted))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	for i, g := range granted {
		if g.GetSlot().GetLength() < length {
			continue
		}
		cr := &room[i]
		cr.s, cr.slot, cr.length, cr.deadline = s, g.GetSlot(), length, int64(g.GetDeadlineNs())
		s.credits[idOf(cr.slot)] = cr
		credits = append(credits, cr)
	}
	return credits
}

// grant asks for n slots of one length and waits for the answer: fewer are
// possible, none is fault.Full.
func (s *session) grant(ctx context.Context, length uint64, n int) ([]*Credit, error) {
	n = min(n, int(s.hello.GetLimits().GetMaxParts()))
	var credits []*Credit
	c, id, err := s.start(ctx, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Credits{
		Credits: &larderv1.Credits{Want: []*larderv1.CreditRequest{{Length: length, Count: uint32(n)}}},
	}}, func(r *larderv1.SessionResponse, late bool) {
		if credits = s.adopt(length, r.GetCredits()); late {
			s.giveBack(credits)
		}
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.wait(ctx, c, id); err != nil {
		return nil, err
	}
	if len(credits) == 0 {
		return nil, fault.New(fault.Full, "credits.want", "no slot was granted").With(n, nil)
	}
	return credits, nil
}

// giveBack returns credits that nobody will use.
func (s *session) giveBack(credits []*Credit) {
	slots := make([]*larderv1.Slot, 0, len(credits))
	for _, cr := range credits {
		if cr.spend() == nil {
			slots = append(slots, cr.slot)
		}
	}
	s.ctl.returnUnused(slots...)
}

func (cr *Credit) usable() bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.state == creditFree
}

// leave returns every credit that is neither being written nor committed, and
// waits until the daemon knows.
func (s *session) leave(ctx context.Context) {
	s.mu.Lock()
	s.draining = true // no refill from here on
	credits := make([]*Credit, 0, len(s.credits))
	for _, cr := range s.credits {
		credits = append(credits, cr)
	}
	s.mu.Unlock()
	s.giveBack(credits)
	s.ctl.flush(ctx, s.ended)
}
