package session

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/wirefault"
	"github.com/larderkv/larder/storage/arena"
)

// session is one stream.
type session struct {
	service *Service
	stream  larderv1.Engine_SessionServer
	peer    auth.Identity
	id      uint64
	opened  time.Time
	// ctx ends when the session does; loads and commits stop at their next
	// part then.
	ctx    context.Context
	cancel context.CancelFunc

	// Set by hello, before anything else is handled, and constant from then on;
	// others read them only after they found the session by its token or saw
	// ready set.
	ready     atomic.Bool
	hello     *larderv1.Hello
	token     []byte
	tenant    *registry.Tenant
	namespace *registry.Namespace // nil: opaque files only
	scope     arena.Scope
	instance  *directory.Instance
	attached  bool // is an owner in the arena
	lengths   []int64
	// writeBytes is the length of its write segment in guarded mode.
	writeBytes int64

	sendMu sync.Mutex
	// lane takes over from the stream; under sendMu.
	lane   *lane
	events *events

	killOnce sync.Once
	killed   chan struct{}
	reason   error

	// turn is held while a request is handled: stream and lane take turns.
	turn sync.Mutex
	// laned is set once the session has a lane.
	laned atomic.Bool
	// work are the goroutines of the lane, and of loads and commits; inFlight
	// counts the latter.
	work     sync.WaitGroup
	inFlight atomic.Int32
	leases   atomic.Int32
	epoch    atomic.Uint64
	// writer: it has asked for credits; short: it got less, so often.
	writer atomic.Bool
	short  atomic.Uint64

	mu    sync.Mutex
	over  bool
	loads map[uint64]*load
	// granted slots with their bytes, and these together.
	granted      map[slotID]int64
	grantedBytes int64
	// lifetimes are the read ends of pipes that were handed over.
	lifetimes []*os.File
}

func newSession(v *Service, stream larderv1.Engine_SessionServer, peer auth.Identity, id uint64) *session {
	ctx, cancel := context.WithCancel(stream.Context())
	return &session{
		service: v, stream: stream, peer: peer, id: id, opened: time.Now(), ctx: ctx, cancel: cancel,
		events: newEvents(), killed: make(chan struct{}),
		loads: map[uint64]*load{}, granted: map[slotID]int64{},
	}
}

func (s *session) owner() arena.Owner { return arena.Owner(s.id) }

// kill ends the session from outside; the first reason counts. It does not
// wait.
func (s *session) kill(reason error) {
	s.killOnce.Do(func() {
		s.reason = reason
		s.cancel()
		close(s.killed)
	})
}

// run is the stream's handler. When it returns the stream is over, which ends
// the reader if it still runs; the reader cleans up.
func (s *session) run() error {
	silent := time.AfterFunc(s.service.options.Limits.Hello, func() {
		if !s.ready.Load() {
			s.kill(fault.New(fault.Unavailable, "hello", "no hello came in time").With(nil, s.service.options.Limits.Hello))
		}
	})
	defer silent.Stop()
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		s.sendEvents()
	}()
	done := make(chan error, 1)
	go func() {
		err := s.read(s.fromStream)
		s.cancel()
		<-sender
		s.finish()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-s.killed:
		return s.reason
	}
}

// read handles requests until next, which fills in the next one, returns
// io.EOF: a clean end.
func (s *session) read(next func(*inbound) error) error {
	limit := s.service.options.Limits.MaxMessageBytes
	for {
		in := new(inbound)
		if err := next(in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.check(limit); err != nil {
			return err
		}
		if err := s.handle(&in.request); err != nil {
			return err
		}
	}
}

func (s *session) fromStream(in *inbound) error {
	if err := s.stream.RecvMsg(in); err != nil {
		return err
	}
	if s.laned.Load() {
		return fault.New(fault.Invalid, "lane", "a request on the stream of a session that has a lane")
	}
	return nil
}

// handle answers one request. Its error ends the session.
func (s *session) handle(req *larderv1.SessionRequest) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	id := req.GetId()
	if id == 0 || id > 1<<63-1 {
		return fault.New(fault.Invalid, "id", "out of range").With(id, "1..2^63-1")
	}
	if !s.ready.Load() {
		hello := req.GetHello()
		if hello == nil {
			return fault.New(fault.Invalid, "hello", "a session opens with hello")
		}
		reply, err := s.greet(hello)
		if err != nil {
			// The answer says it to clients that only read replies; the end of
			// the stream says it to all others.
			s.refuse(id, err)
			return err
		}
		s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Hello{Hello: reply}})
		return nil
	}
	if req.GetHello() != nil {
		return fault.New(fault.Invalid, "hello", "a second hello on one session")
	}
	if err := s.dispatch(id, req); err != nil {
		s.refuse(id, err)
	}
	return nil
}

// dispatch starts one request. It has answered, or will answer, unless it
// returns an error.
func (s *session) dispatch(id uint64, req *larderv1.SessionRequest) error {
	switch b := req.GetBody().(type) {
	case *larderv1.SessionRequest_Match:
		return s.match(id, b.Match)
	case *larderv1.SessionRequest_RenewHold:
		return s.renewHold(id, b.RenewHold)
	case *larderv1.SessionRequest_EndHolds:
		return s.endHolds(id, b.EndHolds)
	case *larderv1.SessionRequest_Prefetch:
		return s.prefetch(id, b.Prefetch)
	case *larderv1.SessionRequest_Load:
		return s.load(id, b.Load)
	case *larderv1.SessionRequest_Release:
		return s.release(id, b.Release)
	case *larderv1.SessionRequest_Credits:
		return s.credits(id, b.Credits)
	case *larderv1.SessionRequest_Commit:
		return s.commit(id, b.Commit)
	case *larderv1.SessionRequest_ReturnCredits:
		return s.returnCredits(id, b.ReturnCredits)
	case *larderv1.SessionRequest_Skip:
		return s.skip(id, b.Skip)
	case *larderv1.SessionRequest_RevokeAnswer:
		return s.revokeAnswer(id, b.RevokeAnswer)
	}
	// A newer minor version may know more.
	return fault.New(fault.Invalid, "body", "no request, or one that this daemon does not know").With(nil, "version 1.0")
}

// reply sends an answer. An error means that the stream is over; the reader
// finds out by itself.
func (s *session) reply(id uint64, r *larderv1.SessionResponse) {
	r.Id = id
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if s.lane != nil {
		_ = s.lane.send(r)
		return
	}
	_ = s.stream.Send(r)
}

// refuse answers with an error.
func (s *session) refuse(id uint64, err error) {
	p := wirefault.Proto(err)
	s.service.options.Meter.Said(fault.Kind(p.Kind))
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Error{Error: p}})
}

// finish gives back what the session has. It runs once, after the last
// request was handled.
func (s *session) finish() {
	s.mu.Lock()
	s.over = true
	lifetimes := s.lifetimes
	s.lifetimes = nil
	s.mu.Unlock()
	s.work.Wait()
	if s.attached {
		s.allSpent()
		if s.service.options.Arena.Detach(s.owner()) > 0 {
			s.service.quarantine(s, lifetimes)
			lifetimes = nil
		}
	}
	for _, f := range lifetimes {
		_ = f.Close()
	}
	if s.instance != nil {
		s.service.options.Directory.Leave(s.instance)
	}
	if s.namespace != nil {
		s.namespace.Leave()
	}
	if s.ready.Load() {
		s.service.options.Logger.Info("session ended", "session", s.id, "caller", s.peer.String())
		s.peer.Process.Unref()
	}
	s.service.forget(s)
}

// needs refuses requests that the session's role or connection rules out.
func (s *session) needs(namespace, shared bool) error {
	switch {
	case namespace && s.namespace == nil:
		return fault.New(fault.Invalid, "hello.namespace", "the session has no namespace")
	case shared && s.hello.GetRole() == larderv1.Role_ROLE_SCHEDULER:
		return fault.New(fault.Invalid, "hello.role", "a scheduler's session has no slots")
	case shared && !s.attached:
		return fault.New(fault.Invalid, "", "this connection cannot share memory; use Objects")
	case shared && !s.watched():
		return fault.New(fault.Invalid, "", "take the descriptors at the hand-over socket first")
	}
	return nil
}

// watched says whether the daemon will see the end of the process. Without a
// pidfd that is known only once the lifetime pipe was handed over.
func (s *session) watched() bool {
	if s.peer.Process != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lifetimes) > 0
}
