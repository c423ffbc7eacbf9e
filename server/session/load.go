package session

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/wirefault"
	"github.com/larderkv/larder/storage/arena"
)

// Replies of a load grow: the first one goes out early so that the client's
// copies start, later ones carry more so that few messages are sent. Factor
// 3/2: checking runs at about 1.5 times the speed of copying, so a batch is
// ready when the copies of the one before have ended. A GPU copies as fast as
// several processors check; the last batch, which nothing is copied beside,
// must not be a third of everything then. What was checked before there was time
// to say so goes with the next reply.
const (
	firstBatch = 1 << 20
	mostBatch  = 64 << 20
)

// Where nothing is checked all parts are ready within microseconds, and one
// reply is better than several.
const minInterval = 25 * time.Microsecond

func nextBatch(n int64) int64 { return min(n+n/2, mostBatch) }

// load is one load from its request to its release.
type load struct {
	id    uint64
	began time.Time
	refs  []arena.ChunkRef
	// cold are the places in refs of chunks that lie below the host tier, and
	// coldKeys their keys.
	cold     []int
	coldKeys []keys.Key
	// worst quality that the engine was told of.
	worst uint8
	first uint32
	parts []int // nil: all

	// Under session.mu.
	running  bool
	released bool
	leased   int
}

func (s *session) load(id uint64, m *larderv1.Load) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	if s.service.Draining() {
		return stopping()
	}
	hold, err := s.service.options.Directory.Hold(s.instance, m.GetHoldId())
	if err != nil {
		return err
	}
	end := uint64(m.GetFirstChunk()) + uint64(m.GetChunks())
	if m.GetChunks() == 0 || end > uint64(len(hold.Refs)) {
		return fault.New(fault.Invalid, "load.chunks", "not within the hold").With(end, len(hold.Refs))
	}
	parts, each, bytes, err := s.choose(m.GetParts())
	if err != nil {
		return err
	}
	if n, most := uint64(m.GetChunks())*uint64(each), s.service.options.Limits.MaxParts; n > uint64(most) {
		return fault.New(fault.Invalid, "load.parts", "too many parts in one load").With(n, most)
	}
	l := &load{
		id: id, began: time.Now(), refs: hold.Refs[m.GetFirstChunk():end], first: m.GetFirstChunk(), worst: hold.Quality, parts: parts, running: true,
	}
	if hold.Keys != nil {
		for i, ref := range l.refs {
			if ref == (arena.ChunkRef{}) {
				l.cold = append(l.cold, i)
				l.coldKeys = append(l.coldKeys, hold.Keys[int(l.first)+i])
			}
		}
	}
	if err := s.register(l); err != nil {
		return err
	}
	if bytes*int64(len(l.refs)) <= inlineBytes && len(l.cold) == 0 {
		s.runLoad(l)
		return nil
	}
	if err := s.start(func() { s.runLoad(l) }); err != nil {
		s.mu.Lock()
		delete(s.loads, id)
		s.mu.Unlock()
		return err
	}
	return nil
}

// choose checks the indexes of parts; nil stands for all.
func (s *session) choose(want []uint32) (parts []int, each int, bytes int64, err error) {
	if len(want) == 0 {
		for _, n := range s.lengths {
			bytes += n
		}
		return nil, len(s.lengths), bytes, nil
	}
	seen := make([]bool, len(s.lengths))
	parts = make([]int, len(want))
	for i, p := range want {
		switch {
		case int(p) >= len(s.lengths):
			return nil, 0, 0, fault.New(fault.Invalid, "load.parts", "no such part in the namespace").With(p, len(s.lengths)-1)
		case seen[p]:
			return nil, 0, 0, fault.New(fault.Invalid, "load.parts", "a part is named twice").With(p, nil)
		}
		seen[p] = true
		parts[i] = int(p)
		bytes += s.lengths[p]
	}
	return parts, len(parts), bytes, nil
}

func (s *session) register(l *load) error {
	most := s.service.options.Limits.MaxInFlight
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.loads[l.id] != nil:
		return fault.New(fault.Invalid, "id", "a load of this id is not released yet").With(l.id, nil)
	case len(s.loads) >= most:
		return fault.New(fault.Busy, "load", "too many loads that are not released").With(nil, most)
	}
	s.loads[l.id] = l
	return nil
}

// runLoad leases what is in the arena, checks it on several processors at once,
// and reports meanwhile what is ready, in order. A chunk that lies below is waited
// for once everything before it is reported.
func (s *session) runLoad(l *load) {
	var (
		reply  = &larderv1.LoadReply{}
		leased []arena.Leased
		next   []checked // leased, not checked yet
		ready  int64     // bytes in reply
		batch  = int64(firstBatch)
		sent   = l.began
		total  int64
		parts  int
		failed int
	)
	fail := func(chunk uint32, part int, err error) {
		p := wirefault.Proto(err)
		s.service.options.Meter.Said(fault.Kind(p.Kind))
		reply.Failed = append(reply.Failed, &larderv1.FailedPart{Chunk: chunk, Part: uint32(part), Error: p})
		failed++
	}
	send := func() {
		deadline := reply.DeadlineNs
		s.reply(l.id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Load{Load: reply}})
		reply = &larderv1.LoadReply{DeadlineNs: deadline}
		ready, sent = 0, time.Now()
	}
	check := func() {
		s.verifyAll(l, next, func(c *checked) {
			if c.err != nil {
				fail(c.chunk, c.Part, c.err)
				return
			}
			reply.DeadlineNs = uint64(c.Deadline)
			reply.Ready = append(reply.Ready, &larderv1.LeasedPart{
				Chunk: c.chunk, Part: uint32(c.Part), Slot: slotProto(c.Slot), Length: c.Length,
			})
			parts++
			ready += int64(c.Length)
			total += int64(c.Length)
			// Fewer parts than are checked at a time come soon after each other.
			if ready >= batch && len(reply.Ready) >= s.service.options.Checkers && time.Since(sent) >= minInterval {
				send()
				batch = nextBatch(batch)
			}
		})
		next = next[:0]
	}
	var promotion Promotion
	if len(l.cold) > 0 {
		promotion = s.service.options.Below.Start(s.scope, l.coldKeys, l.worst)
		defer promotion.End()
	}
	brought := 0
	for i, ref := range l.refs {
		chunk := l.first + uint32(i)
		var err error
		leased = leased[:0]
		switch {
		case s.stopped(l):
			err = released()
		case brought < len(l.cold) && l.cold[brought] == i:
			if check(); ready > 0 {
				send() // what is ready need not wait for a disk
			}
			leased, err = s.bring(l, promotion, brought, leased)
			brought++
		default:
			leased, err = s.service.options.Arena.Lease(s.owner(), l.id, ref, l.parts, leased)
		}
		if err != nil {
			check()
			for _, p := range s.partsOf(l) {
				fail(chunk, p, err)
			}
			continue
		}
		s.leasing(l, len(leased))
		for j := range leased {
			next = append(next, checked{Leased: leased[j], chunk: chunk})
		}
	}
	check()
	s.finishLoad(l)
	reply.Done = true
	s.reply(l.id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Load{Load: reply}})
	s.service.options.Meter.Loaded(time.Since(l.began), parts, failed, total)
}

// checked is a leased part and what its check said.
type checked struct {
	arena.Leased
	chunk uint32
	err   error
}

// verifyAll checks parts of a load on as many processors as it may use, and
// hands each one over as soon as it and all before it are checked.
func (s *session) verifyAll(l *load, parts []checked, ready func(*checked)) {
	verify := func(c *checked) {
		if c.err = released(); !s.stopped(l) {
			c.err = s.verify(&c.Leased)
		}
	}
	workers := min(len(parts), s.service.options.Checkers)
	if workers < 2 {
		for i := range parts {
			verify(&parts[i])
			ready(&parts[i])
		}
		return
	}
	var (
		next atomic.Int64
		busy sync.WaitGroup
		done = make([]atomic.Bool, len(parts))
		news = make(chan struct{}, 1)
	)
	for range workers {
		busy.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(parts)); i = next.Add(1) - 1 {
				verify(&parts[i])
				done[i].Store(true)
				select {
				case news <- struct{}{}:
				default: // it will look at all of them
				}
			}
		})
	}
	for i := range parts {
		for !done[i].Load() {
			<-news
		}
		ready(&parts[i])
	}
	busy.Wait()
}

// bring leases a chunk that lies below, when it is in the arena.
func (s *session) bring(l *load, p Promotion, i int, dst []arena.Leased) ([]arena.Leased, error) {
	ref, err := p.Wait(s.ctx, i)
	if err != nil {
		return dst, err
	}
	defer s.service.options.Arena.Unhold([]arena.ChunkRef{ref})
	return s.service.options.Arena.Lease(s.owner(), l.id, ref, l.parts, dst)
}

func (s *session) partsOf(l *load) []int {
	if l.parts != nil {
		return l.parts
	}
	all := make([]int, len(s.lengths))
	for i := range all {
		all[i] = i
	}
	return all
}

func (s *session) verify(p *arena.Leased) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.service.options.Arena.Verify(*p)
}

func released() error { return fault.New(fault.Miss, "load", "released before it was done") }

// stopped says whether nobody wants the rest of the load any more.
func (s *session) stopped(l *load) bool {
	if s.ctx.Err() != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.released
}

func (s *session) leasing(l *load, n int) {
	s.mu.Lock()
	l.leased += n
	s.mu.Unlock()
	s.leases.Add(int32(n))
}

// finishLoad comes before the last reply, so that a release that follows the
// reply finds the load at rest. A load that was released meanwhile ends here.
func (s *session) finishLoad(l *load) {
	s.mu.Lock()
	l.running = false
	over := l.released || l.leased == 0
	if over {
		delete(s.loads, l.id)
	}
	s.mu.Unlock()
	if over {
		s.service.options.Arena.Release(s.owner(), l.id)
		s.leases.Add(-int32(l.leased))
	}
}

func (s *session) release(id uint64, r *larderv1.Release) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	confirmed := false
	if s.endLoad(r.GetLoadId()) {
		confirmed = s.service.options.Arena.Release(s.owner(), r.GetLoadId())
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Release{Release: &larderv1.ReleaseReply{Confirmed: confirmed}}})
	return nil
}

// endLoad takes a load off the list. One that still runs only stops; what it
// has copied does not count. It says whether the arena is to be told.
func (s *session) endLoad(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.loads[id]
	if l == nil {
		return false
	}
	if l.running {
		l.released = true
		return false
	}
	delete(s.loads, id)
	s.leases.Add(-int32(l.leased))
	return true
}
