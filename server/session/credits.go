package session

import (
	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/arena"
)

// slotID names one life of a slot. The session keeps the ids of its grants
// only to count them: the arena's word decides what is granted.
type slotID struct {
	offset     uint64
	generation uint32
	segment    uint16
}

func idOf(s arena.Slot) slotID { return slotID{s.Offset, s.Generation, s.Segment} }

// slotOf reads a client's slot. A segment that cannot exist stays one that
// does not.
func slotOf(p *larderv1.Slot) arena.Slot {
	return arena.Slot{
		Segment: uint16(min(p.GetSegment(), arena.WriteSegment)), Offset: p.GetOffset(),
		Length: p.GetLength(), Generation: p.GetGeneration(),
	}
}

func slotProto(s arena.Slot) *larderv1.Slot {
	return &larderv1.Slot{Segment: uint32(s.Segment), Offset: s.Offset, Length: s.Length, Generation: s.Generation}
}

func (s *session) credits(id uint64, c *larderv1.Credits) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	if s.service.Draining() {
		return stopping()
	}
	total := uint64(0)
	for _, w := range c.GetWant() {
		if w.GetLength() < 1 || w.GetLength() > part.MaxLength {
			return fault.New(fault.Invalid, "credits.want.length", "out of range").With(w.GetLength(), "1..67108864")
		}
		total += uint64(w.GetCount())
	}
	limits := &s.service.options.Limits
	if total < 1 || total > uint64(limits.MaxParts) {
		return fault.New(fault.Invalid, "credits.want.count", "out of range").With(total, limits.MaxParts)
	}
	room := limits.MaxCredits - s.creditCount()
	if room <= 0 {
		return fault.New(fault.Full, "credits", "the session has as many credits as it may").With(nil, limits.MaxCredits)
	}
	var grants []arena.Grant
	var err error
	for _, w := range c.GetWant() {
		n := min(int(w.GetCount()), room-len(grants))
		if n == 0 {
			continue
		}
		if grants, err = s.service.options.Arena.Grant(s.owner(), int64(w.GetLength()), n, grants); err != nil {
			break
		}
	}
	if len(grants) == 0 {
		return err
	}
	reply := &larderv1.CreditsReply{Granted: make([]*larderv1.GrantedSlot, len(grants))}
	s.mu.Lock()
	for i, g := range grants {
		s.granted[idOf(g.Slot)] = struct{}{}
		reply.Granted[i] = &larderv1.GrantedSlot{Slot: slotProto(g.Slot), DeadlineNs: uint64(g.Deadline)}
	}
	s.mu.Unlock()
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Credits{Credits: reply}})
	return nil
}

func (s *session) creditCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.granted)
}

// spent takes slots off the count of credits.
func (s *session) spent(slots ...arena.Slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		delete(s.granted, idOf(slot))
	}
}

func slotsOf(list []*larderv1.Slot) []arena.Slot {
	slots := make([]arena.Slot, len(list))
	for i, p := range list {
		slots[i] = slotOf(p)
	}
	return slots
}

func (s *session) returnCredits(id uint64, r *larderv1.ReturnCredits) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	slots := slotsOf(r.GetSlots())
	err := s.service.options.Arena.Return(s.owner(), slots)
	s.spent(slots...)
	if err != nil {
		return err
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_ReturnCredits{ReturnCredits: &larderv1.ReturnCreditsReply{}}})
	return nil
}
