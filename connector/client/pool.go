package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
)

// pool keeps credits granted ahead, by length, so that storing is copy and
// commit. It serves the current session only: credits of an ended one are dead
// and fall out when they are met.
type pool struct {
	// want is how many of each length are kept; read-only.
	want map[uint64]int
	// limit is how many bytes of credits the daemon allows the session, as it
	// said last; 0: no bound. What is kept is scaled down to it.
	limit atomic.Uint64
	// low has a value when some length may be short.
	low chan struct{}
	// filling is held from a refill's question until its slots are here.
	filling sync.Mutex

	mu   sync.Mutex
	free map[uint64][]*Credit
}

// fullPause is the least time between a refill that the daemon refused for
// want of room and the next one.
const fullPause = 20 * time.Millisecond

func newPool(want map[uint64]int) *pool {
	return &pool{want: want, low: make(chan struct{}, 1), free: make(map[uint64][]*Credit)}
}

// kept is how many credits of the length are kept.
func (p *pool) kept(length uint64) int {
	limit, total := p.limit.Load(), uint64(0)
	if limit == 0 {
		return p.want[length]
	}
	for l, n := range p.want {
		total += slotBytes(l) * uint64(n)
	}
	if total <= limit {
		return p.want[length]
	}
	return min(p.want[length], max(1, int(float64(p.want[length])*float64(limit)/float64(total))))
}

// slotBytes is what a slot of a length takes: whole pages.
func slotBytes(length uint64) uint64 { return (length + 4095) &^ 4095 }

func (p *pool) wake() {
	select {
	case p.low <- struct{}{}:
	default:
	}
}

// take removes up to n credits of the length, the oldest first, and asks for a
// refill once half of them are gone.
func (p *pool) take(s *session, length uint64, n int, dst []*Credit) []*Credit {
	now := monotonic()
	var stale []*Credit
	p.mu.Lock()
	free := p.free[length]
	for n > 0 && len(free) > 0 {
		cr := free[0]
		free = free[1:]
		switch {
		case cr.s != s:
		case cr.fresh(now):
			dst = append(dst, cr)
			n--
		default:
			stale = append(stale, cr)
		}
	}
	p.free[length] = free
	low := len(free) <= p.kept(length)/2
	p.mu.Unlock()
	s.giveBack(stale)
	if low {
		p.wake()
	}
	return dst
}

// takeLate is take where the daemon has no slot any more: they may be on their
// way to the pool. It waits for one refill at most.
func (p *pool) takeLate(s *session, length uint64, n int, dst []*Credit) []*Credit {
	p.filling.Lock()
	p.filling.Unlock() //nolint:staticcheck // only waits
	return p.take(s, length, n, dst)
}

func (p *pool) put(credits ...*Credit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cr := range credits {
		p.free[cr.length] = append(p.free[cr.length], cr)
	}
}

// drop gives all credits of the session back.
func (p *pool) drop(s *session) {
	p.mu.Lock()
	var all []*Credit
	for length, free := range p.free {
		all = append(all, free...)
		delete(p.free, length)
	}
	p.mu.Unlock()
	for _, cr := range all {
		if cr.s == s {
			s.giveBack([]*Credit{cr})
		}
	}
}

// short returns how many credits of each length are missing now.
func (p *pool) short(s *session) map[uint64]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	missing := make(map[uint64]int)
	for length := range p.want {
		usable := p.free[length][:0]
		for _, cr := range p.free[length] {
			if cr.s == s && cr.usable() {
				usable = append(usable, cr)
			}
		}
		p.free[length] = usable
		if n := p.kept(length) - len(usable); n > 0 {
			missing[length] = n
		}
	}
	return missing
}

// refill keeps the pool full until the session ends.
func (s *session) refill() {
	p := s.c.pool
	if len(p.want) == 0 || s.mem == nil {
		return
	}
	timer := time.NewTimer(0) // a first refill at once
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.low:
		case <-s.ended:
			return
		}
		s.mu.Lock()
		draining := s.draining
		s.mu.Unlock()
		if draining {
			continue
		}
		for length, n := range p.short(s) {
			ctx, cancel := context.WithTimeout(context.Background(), s.c.opt.CallTimeout)
			p.filling.Lock()
			credits, err := s.grant(ctx, length, n)
			p.put(credits...)
			p.filling.Unlock()
			cancel()
			if err != nil {
				// A full arena: the next take will ask again, but not at once.
				if errors.Is(err, fault.Full) || errors.Is(err, fault.Busy) {
					select {
					case <-time.After(fullPause):
					case <-s.ended:
						return
					}
				}
				break
			}
		}
	}
}

// keep takes unused credits back into the pool, as far as it wants them, and
// returns the rest to the daemon.
func (p *pool) keep(s *session, credits []*Credit) {
	if len(credits) == 0 {
		return
	}
	length := credits[0].length
	p.mu.Lock()
	n := min(max(p.kept(length)-len(p.free[length]), 0), len(credits))
	p.free[length] = append(p.free[length], credits[:n]...)
	p.mu.Unlock()
	s.giveBack(credits[n:])
}
