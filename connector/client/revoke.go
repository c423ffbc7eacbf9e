package client

import larderv1 "github.com/larderkv/larder/api/larder/v1"

// revoke takes grants and loads away whose deadline has passed. What no
// section touches is answered at once; for the rest the end of the section
// answers. A slot or load that this session does not know (any more) is not
// touched by anybody here.
func (s *session) revoke(r *larderv1.Revoke) {
	s.c.stats.revokes.Add(1)
	var slots []*larderv1.Slot
	var loads []uint64
	for _, slot := range r.GetGrants() {
		s.mu.Lock()
		cr := s.credits[idOf(slot)]
		delete(s.credits, idOf(slot))
		s.mu.Unlock()
		if cr == nil || cr.revoke() {
			slots = append(slots, slot)
		}
	}
	for _, id := range r.GetLoadIds() {
		s.mu.Lock()
		l := s.loads[id]
		s.mu.Unlock()
		if l == nil || l.revoke() {
			loads = append(loads, id)
		}
	}
	s.ctl.answerRevoke(slots, loads...)
	s.c.pool.wake()
}
