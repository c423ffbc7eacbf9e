package client

import (
	"context"
	"io"
	"sync"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// LoadRequest names parts of held chunks.
type LoadRequest struct {
	Hold uint64
	// Chunks [First, First+Chunks) of the hold.
	First, Chunks int
	// Parts are indexes into Hello().Parts; empty = all.
	Parts []uint32
}

// LeasedPart is a part that may be read until the load is released.
type LeasedPart struct {
	// Chunk is the index in the hold, Part the one in Hello().Parts.
	Chunk int
	Part  uint32
	// Bytes lie in the arena: read only, and not after Release.
	Bytes []byte
}

// FailedPart is a part that could not be made readable.
type FailedPart struct {
	Chunk int
	Part  uint32
	Err   error
}

// Load is a load under way. It must be released, whatever happened.
type Load struct {
	s  *session
	id uint64
	// size of the request while nothing was answered; under s.mu.
	size int

	// news has a value when there is something for Next.
	news chan struct{}

	mu       sync.Mutex
	ready    []*larderv1.LeasedPart
	failed   []FailedPart
	deadline int64
	done     bool
	err      error
	state    loadState
}

type loadState uint8

const (
	loadIdle     loadState = iota // no view was given out
	loadReading                   // views are out: a section
	loadRevoked                   // views are out and the daemon wants them back
	loadDead                      // no views are out and none will be
	loadReleased                  // Release was called
)

// Load asks for parts to be made readable and returns at once.
func (c *Client) Load(ctx context.Context, r LoadRequest) (*Load, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	if s.mem == nil {
		return nil, fault.New(fault.Invalid, "load", "the session has no shared memory; use Fetch")
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	l := &Load{s: s, news: make(chan struct{}, 1)}
	m := &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{
		HoldId: r.Hold, FirstChunk: uint32(r.First), Chunks: uint32(r.Chunks), Parts: r.Parts,
	}}}
	if err := s.enqueue(ctx, m, func(id uint64) {
		l.id, l.size = id, sizeOf(m)
		s.loads[id] = l
		s.unanswered += l.size
	}); err != nil {
		return nil, err
	}
	c.stats.loads.Add(1)
	return l, nil
}

// Next waits for parts that have become readable and returns them, or io.EOF
// after the last ones. After any other error nothing more comes.
func (l *Load) Next(ctx context.Context) ([]LeasedPart, error) {
	ctx, cancel := l.s.c.bound(ctx)
	defer cancel()
	for {
		parts, err := l.next()
		if parts != nil || err != nil {
			return parts, err
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			err := timeout(ctx)
			l.s.c.breaker.done(false, outcomeOf(err))
			return nil, err
		}
	}
}

func (l *Load) next() ([]LeasedPart, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.state == loadReleased:
		return nil, fault.New(fault.Invalid, "load_id", "the load was released before")
	case l.err != nil:
		return nil, l.err
	case l.state == loadRevoked || l.state == loadDead:
		return nil, fault.New(fault.Miss, "", "the load was revoked: its deadline has passed")
	case len(l.ready) == 0 && l.done:
		return nil, io.EOF
	case len(l.ready) == 0:
		return nil, nil
	}
	if l.state == loadIdle {
		if !l.s.mem.enter() {
			return nil, fault.New(fault.Unavailable, "", "the session of the load has ended")
		}
		l.state = loadReading
	}
	parts := make([]LeasedPart, len(l.ready))
	for i, p := range l.ready {
		view, err := l.s.mem.view(p.GetSlot(), p.GetLength())
		if err != nil {
			return nil, err
		}
		parts[i] = LeasedPart{Chunk: int(p.GetChunk()), Part: p.GetPart(), Bytes: view}
	}
	l.ready = nil
	return parts, nil
}

// Failed returns the parts that failed so far; all of them after io.EOF.
func (l *Load) Failed() []FailedPart {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Release ends the load after the last copy. True means that every part given
// out by Next had the right bytes until now: only then does what was copied
// count. A second Release is fault.Invalid.
func (l *Load) Release(ctx context.Context) (confirmed bool, err error) {
	l.mu.Lock()
	state, lerr, deadline := l.state, l.err, l.deadline
	l.state = loadReleased
	l.mu.Unlock()
	switch state {
	case loadReleased:
		return false, fault.New(fault.Invalid, "release.load_id", "the load was released before").With(l.id, nil)
	case loadRevoked, loadReading:
		l.s.mem.leave()
	}
	l.s.mu.Lock()
	delete(l.s.loads, l.id)
	l.answered()
	l.s.mu.Unlock()
	l.s.giveRoom() // the daemon counts a load until its release
	late := deadline != 0 && monotonic() > deadline
	switch {
	case state == loadRevoked:
		l.s.ctl.answerRevoke(nil, l.id)
		return false, nil
	case state == loadDead || lerr != nil:
		return false, nil // the daemon has ended it already
	}
	ctx, cancel := l.s.c.bound(ctx)
	defer cancel()
	r, err := l.s.c.callOn(ctx, l.s, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Release{
		Release: &larderv1.Release{LoadId: l.id},
	}}, nil)
	if err != nil {
		return false, err
	}
	return r.GetRelease().GetConfirmed() && !late, nil
}

// push takes what the daemon says about the load; on the receiving goroutine.
func (l *Load) push(r *larderv1.LoadReply) {
	l.mu.Lock()
	if len(l.ready) == 0 {
		l.ready = r.GetReady()
	} else {
		l.ready = append(l.ready, r.GetReady()...)
	}
	for _, f := range r.GetFailed() {
		l.failed = append(l.failed, FailedPart{Chunk: int(f.GetChunk()), Part: f.GetPart(), Err: fromProto(f.GetError())})
	}
	if d := int64(r.GetDeadlineNs()); d != 0 {
		l.deadline = d
	}
	l.done = l.done || r.GetDone()
	l.mu.Unlock()
	l.signal()
}

// fail ends the load with an error; the daemon keeps no lease for it.
func (l *Load) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.signal()
}

// revoke takes the load away; true if the revoke can be answered at once.
func (l *Load) revoke() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.signal()
	switch l.state {
	case loadReading, loadRevoked:
		l.state = loadRevoked
		return false
	case loadIdle:
		l.state = loadDead
	}
	return true
}

func (l *Load) signal() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// answered notes that the request was sent for sure; the caller holds s.mu.
func (l *Load) answered() {
	l.s.unanswered -= l.size
	l.size = 0
}
