package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// session is one stream to one daemon, from the hello to its end. It carries
// calls and loads, answers revokes, and dies with the stream.
type session struct {
	c          *Client
	generation uint64
	hello      *larderv1.HelloReply
	mem        *mapping // nil without shared memory
	conn       *grpc.ClientConn
	stream     larderv1.Engine_SessionClient
	stop       context.CancelFunc

	// sending is held by whoever sends on the stream: the sender, or a caller
	// who found nobody there (enqueue).
	sending sync.Mutex
	sendq   chan *larderv1.SessionRequest
	// room holds one value for each further request that may be unanswered.
	room chan struct{}
	// ended is closed once err is set.
	ended chan struct{}

	ctl control

	mu       sync.Mutex
	err      error
	lastID   uint64
	calls    map[uint64]*call
	loads    map[uint64]*Load
	credits  map[slotID]*Credit
	draining bool
	// unanswered is the size of the requests without any answer, bytes.
	unanswered int
}

// directBytes bounds what callers send by themselves. gRPC takes 64 KiB of one
// stream before it makes the sender wait for the peer; what is answered was
// sent, so a Send never waits while less than that is unanswered.
const directBytes = 32 << 10

// call is a request that waits for its one reply.
type call struct {
	reply chan *larderv1.SessionResponse
	// arrive sees the reply on the receiving goroutine, before anything that
	// the daemon sent after it, and before the caller; late says that the
	// caller gave up. It must not block. nil: nothing to do.
	arrive func(r *larderv1.SessionResponse, late bool)
	gone   bool
	size   int
}

// inFlight is the bound on unanswered requests that this side keeps, one less
// than the daemon's: the last place is for the session's own messages.
func inFlight(l *larderv1.Limits) int {
	return int(min(max(l.GetMaxInFlight(), 2), 1<<16)) - 1
}

func newSession(c *Client, generation uint64, hello *larderv1.HelloReply, conn *grpc.ClientConn, stream larderv1.Engine_SessionClient, stop context.CancelFunc) *session {
	n := inFlight(hello.GetLimits())
	s := &session{
		c:          c,
		generation: generation,
		hello:      hello,
		conn:       conn,
		stream:     stream,
		stop:       stop,
		sendq:      make(chan *larderv1.SessionRequest, n),
		room:       make(chan struct{}, n),
		ended:      make(chan struct{}),
		lastID:     1, // the hello's
		calls:      make(map[uint64]*call),
		loads:      make(map[uint64]*Load),
		credits:    make(map[slotID]*Credit),
	}
	s.ctl.init(int(hello.GetLimits().GetMaxParts()), int(hello.GetLimits().GetMaxHolds()))
	for range n {
		s.room <- struct{}{}
	}
	return s
}

// run serves the session until it ends and returns why.
func (s *session) run() error {
	var wg sync.WaitGroup
	wg.Go(s.send)
	wg.Go(s.refill)
	wg.Go(s.report)
	s.receive()
	wg.Wait()
	return s.err
}

// end makes the session dead; the first reason stays.
func (s *session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	loads := make([]*Load, 0, len(s.loads))
	for _, l := range s.loads {
		loads = append(loads, l)
	}
	credits := make([]*Credit, 0, len(s.credits))
	for _, cr := range s.credits {
		credits = append(credits, cr)
	}
	clear(s.calls)
	clear(s.loads)
	clear(s.credits)
	close(s.ended)
	s.mu.Unlock()
	s.stop()
	for _, l := range loads {
		l.fail(err)
	}
	for _, cr := range credits {
		cr.kill()
	}
	if s.mem != nil {
		s.mem.retire()
	}
}

// stands says whether the session takes new work.
func (s *session) stands() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && !s.draining
}

func (s *session) send() {
	for {
		var m *larderv1.SessionRequest
		select {
		case m = <-s.sendq:
		case <-s.ctl.ready:
			if m = s.ctl.take(); m == nil {
				continue
			}
			m.Id = s.register(&call{arrive: func(*larderv1.SessionResponse, bool) { s.ctl.answered() }})
		case <-s.ended:
			return
		}
		s.sending.Lock()
		s.transmit(m)
		s.sending.Unlock()
	}
}

// transmit sends a message; the caller holds s.sending.
func (s *session) transmit(m *larderv1.SessionRequest) {
	if err := s.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		// io.EOF: the stream's own error reaches the receiver.
		s.end(FromStatus(err))
	}
}

func (s *session) receive() {
	for {
		r, err := s.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.New(fault.Unavailable, "", "the daemon ended the session")
			}
			s.end(FromStatus(err))
			return
		}
		s.dispatch(r)
	}
}

func (s *session) dispatch(r *larderv1.SessionResponse) {
	if r.GetId() == 0 {
		s.event(r)
		return
	}
	if lr := r.GetLoad(); lr != nil {
		s.mu.Lock()
		l := s.loads[r.GetId()]
		if l != nil {
			l.answered()
		}
		s.mu.Unlock()
		if l != nil {
			l.push(lr)
		}
		return
	}
	s.mu.Lock()
	if l := s.loads[r.GetId()]; l != nil && r.GetError() != nil {
		delete(s.loads, r.GetId())
		l.answered()
		s.mu.Unlock()
		l.fail(fromProto(r.GetError()))
		return
	}
	c := s.calls[r.GetId()]
	delete(s.calls, r.GetId())
	gone := c != nil && c.gone
	if c != nil {
		s.unanswered -= c.size
	}
	s.mu.Unlock()
	if c == nil {
		return // an answer to nothing: not worth the session
	}
	if c.arrive != nil {
		c.arrive(r, gone)
	}
	if c.reply == nil {
		return // the session's own message, it took no room
	}
	s.giveRoom()
	if !gone {
		c.reply <- r
	}
}

// giveRoom lets one more request be unanswered. A daemon that answers more
// than it was asked gains nothing.
func (s *session) giveRoom() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

func (s *session) register(c *call) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	if s.err == nil {
		s.calls[s.lastID] = c
	}
	return s.lastID
}

// enqueue waits for room and hands the request to the sender. add registers
// whoever takes the replies under the new id; it runs under s.mu.
func (s *session) enqueue(ctx context.Context, m *larderv1.SessionRequest, add func(id uint64)) error {
	select {
	case <-s.room:
	default:
		select {
		case <-s.room:
		case <-ctx.Done():
			return timeout(ctx)
		case <-s.ended:
			return s.err
		}
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	s.lastID++
	m.Id = s.lastID
	add(m.Id)
	direct := s.unanswered <= directBytes // this one included
	s.mu.Unlock()
	// A message that cannot wait goes out at once: waking the sender costs more
	// than sending.
	if direct && s.sending.TryLock() {
		s.transmit(m)
		s.sending.Unlock()
		return nil
	}
	// Never blocks: the queue has a place for each value of room.
	s.sendq <- m
	return nil
}

// start sends a request whose one reply wait returns.
func (s *session) start(ctx context.Context, m *larderv1.SessionRequest, arrive func(r *larderv1.SessionResponse, late bool)) (*call, uint64, error) {
	c := &call{reply: make(chan *larderv1.SessionResponse, 1), arrive: arrive, size: sizeOf(m)}
	err := s.enqueue(ctx, m, func(id uint64) {
		s.calls[id] = c
		s.unanswered += c.size
	})
	return c, m.Id, err
}

// sizeOf is at least the encoded size of a request that a caller makes.
func sizeOf(m *larderv1.SessionRequest) int {
	const envelope, chunk, part = 128, 128, 64
	n := envelope
	switch b := m.GetBody().(type) {
	case *larderv1.SessionRequest_Match:
		n += len(b.Match.GetKeys())
	case *larderv1.SessionRequest_Prefetch:
		n += len(b.Prefetch.GetKeys())
	case *larderv1.SessionRequest_Load:
		n += 5 * len(b.Load.GetParts())
	case *larderv1.SessionRequest_Commit:
		for _, c := range b.Commit.GetChunks() {
			n += chunk + part*len(c.GetParts())
		}
	}
	return n
}

// wait returns the call's reply, or the error in it.
func (s *session) wait(ctx context.Context, c *call, id uint64) (*larderv1.SessionResponse, error) {
	select {
	case r := <-c.reply:
		return unpack(r)
	case <-s.ended:
	case <-ctx.Done():
		s.mu.Lock()
		if s.calls[id] == c {
			c.gone = true
			s.mu.Unlock()
			return nil, timeout(ctx)
		}
		s.mu.Unlock()
	}
	// The session ended, or the reply is being put into the channel.
	select {
	case r := <-c.reply:
		return unpack(r)
	case <-s.ended:
		return nil, s.err
	}
}

func unpack(r *larderv1.SessionResponse) (*larderv1.SessionResponse, error) {
	if e := r.GetError(); e != nil {
		return nil, fromProto(e)
	}
	return r, nil
}

func timeout(ctx context.Context) error {
	return FromStatus(context.Cause(ctx))
}

func (s *session) event(r *larderv1.SessionResponse) {
	switch b := r.GetBody().(type) {
	case *larderv1.SessionResponse_Revoke:
		s.revoke(b.Revoke)
	case *larderv1.SessionResponse_Draining:
		s.mu.Lock()
		s.draining = true
		s.mu.Unlock()
		s.c.opt.Log.Info("the daemon drains", "deadline_ms", b.Draining.GetDeadlineMs())
	case *larderv1.SessionResponse_EpochChanged:
		s.c.pool.drop(s)
		s.c.pool.wake()
	}
}
