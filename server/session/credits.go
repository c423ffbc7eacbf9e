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
	v := s.service
	limits := &v.options.Limits
	if total < 1 || total > uint64(limits.MaxParts) {
		return fault.New(fault.Invalid, "credits.want.count", "out of range").With(total, limits.MaxParts)
	}
	if n, _ := s.creditCount(); n >= limits.MaxCredits {
		s.gotShort()
		return fault.New(fault.Full, "credits", "the session has as many credits as it may").With(nil, limits.MaxCredits)
	}
	s.writes()
	grants, err := s.grant(c.GetWant())
	if uint64(len(grants)) < total {
		s.gotShort()
	}
	if err != nil && len(grants) == 0 {
		return err
	}
	reply := &larderv1.CreditsReply{
		Granted: make([]*larderv1.GrantedSlot, len(grants)), LimitBytes: uint64(s.creditLimit()),
	}
	for i, g := range grants {
		reply.Granted[i] = &larderv1.GrantedSlot{Slot: slotProto(g.Slot), DeadlineNs: uint64(g.Deadline)}
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Credits{Credits: reply}})
	return nil
}

// grant takes what the session's part and the arena allow. Where that is less
// than wanted, each length gets its part of it: a chunk needs one of each. An
// error is the arena's, beside what was granted before it.
func (s *session) grant(want []*larderv1.CreditRequest) (grants []arena.Grant, err error) {
	v := s.service
	v.ahead.granting.Lock()
	defer v.ahead.granting.Unlock()
	count, bytes := s.creditCount()
	slots := v.options.Limits.MaxCredits - count
	wanted := int64(0)
	for _, w := range want {
		wanted += int64(w.GetCount()) * slotBytes(w.GetLength())
	}
	room := wanted
	if v.ahead.most > 0 {
		room = min(wanted, v.ahead.room(bytes, s.floor()))
	}
	for left := room; len(want) > 0; want = want[1:] {
		each, n := slotBytes(want[0].GetLength()), int64(want[0].GetCount())
		if room < wanted {
			n = min(n, left/each, max(1, n*room/wanted))
		}
		before := len(grants)
		if n = min(n, int64(slots-before)); n == 0 {
			continue
		}
		grants, err = v.options.Arena.Grant(s.owner(), int64(want[0].GetLength()), int(n), grants)
		s.grantedNow(grants[before:])
		if err != nil {
			break
		}
		left -= each * int64(len(grants)-before)
	}
	return grants, err
}

// gotShort counts a request that got less than it asked for.
func (s *session) gotShort() {
	s.short.Add(1)
	s.service.short.Add(1)
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
