package session

import (
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/storage/arena"
)

// floorChunks is how many chunks of its namespace every session may have
// slots for, however small the arena and however many sessions there are: one
// being written, and one for the next.
const floorChunks = 2

// ahead bounds what sessions have granted and did not commit: memory that
// caches nothing, and that no other session can take, however idle its owner.
//
// All together may have most bytes. Each of those that write, which are those
// that ever asked, may have an equal part of it, but its floor in any case:
// floors are beyond most where they must be, and then the arena is the only
// bound. Parts become smaller when another session comes. What an older one
// has beyond its new part it keeps until it commits it, returns it, or the
// deadline comes, so that nothing is taken from under a copy; until then the
// new one may find no more than its floor. That is a lease at the longest,
// since what a session asks for again is bounded by its part of now.
type ahead struct {
	// most is 0 where there is no bound.
	most int64
	// granting is held from a look at what is left until it is taken.
	granting sync.Mutex
	bytes    atomic.Int64
	writers  atomic.Int64
}

// limit is what one session with this floor may have as of now; 0: no bound.
func (a *ahead) limit(floor int64) int64 {
	if a.most == 0 {
		return 0
	}
	return max(floor, a.most/max(1, a.writers.Load()))
}

// room is how many bytes more a session may have that has own.
func (a *ahead) room(own, floor int64) int64 {
	limit := a.limit(floor)
	return max(0, min(limit-own, max(a.most-a.bytes.Load(), floor-own)))
}

// slotBytes is what a slot of a length takes. The arena's classes may round
// lengths that are no part's up by an eighth more.
func slotBytes(length uint64) int64 {
	return (int64(length) + arena.PageBytes - 1) &^ (arena.PageBytes - 1)
}

// writes counts the session among those that have a part of what may be
// granted. Only its requests call it, one after the other.
func (s *session) writes() {
	if s.writer.CompareAndSwap(false, true) {
		s.service.ahead.writers.Add(1)
	}
}

// floor is what the session may have in any case.
func (s *session) floor() (n int64) {
	for _, length := range s.lengths {
		n += slotBytes(uint64(length))
	}
	return n * floorChunks
}

// creditLimit is what the session may have as of now; 0: no bound, or it never
// asked.
func (s *session) creditLimit() int64 {
	if !s.writer.Load() {
		return 0
	}
	if n := s.writeBytes; n > 0 {
		return n
	}
	return s.service.ahead.limit(s.floor())
}

// creditCount is how many slots are granted to the session and not committed,
// and their bytes.
func (s *session) creditCount() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.granted), s.grantedBytes
}

// grantedNow counts slots that the arena has granted.
func (s *session) grantedNow(grants []arena.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := int64(0)
	for _, g := range grants {
		s.granted[idOf(g.Slot)] = int64(g.Slot.Length)
		sum += int64(g.Slot.Length)
	}
	s.grantedBytes += sum
	s.service.ahead.bytes.Add(sum)
}

// spent takes slots off the count of credits.
func (s *session) spent(slots ...arena.Slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := int64(0)
	for _, slot := range slots {
		id := idOf(slot)
		sum += s.granted[id]
		delete(s.granted, id)
	}
	s.grantedBytes -= sum
	s.service.ahead.bytes.Add(-sum)
}

// allSpent is the end of the session's part. What is not free then is in
// quarantine, which is counted by itself.
func (s *session) allSpent() {
	s.mu.Lock()
	s.service.ahead.bytes.Add(-s.grantedBytes)
	s.grantedBytes, s.granted = 0, nil
	s.mu.Unlock()
	if s.writer.CompareAndSwap(true, false) {
		s.service.ahead.writers.Add(-1)
	}
}

// Ahead is how much all sessions may have granted, 0 where that is not
// bounded, and how often one got less than it asked for.
func (v *Service) Ahead() (limit int64, short uint64) {
	return v.ahead.most, v.short.Load()
}
