package handover

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/auth"
)

// Sessions finds the session whose token a client shows.
type Sessions interface {
	// ByToken compares in constant time and checks that the caller is the
	// process of the session. Anything else is DENIED, in the same words.
	ByToken(token [TokenSize]byte, id auth.Identity) (Session, error)
}

// Session is what the hand-over needs of one.
type Session interface {
	// Handover takes the read end of the lifetime pipe, whatever it returns,
	// and gives the descriptors in the protocol's order without the pipe. They
	// stay valid until done is called.
	Handover(lifetime *os.File) (fds []int, done func(), err error)
	// Lane lets the connection carry the session's messages. Where it returns
	// no error, conn is the session's and serve must be called, once, after the
	// answer was sent or failed; it does not wait.
	Lane(conn net.Conn) (serve func(), err error)
}

// Options of a server; zero fields mean the defaults.
type Options struct {
	Sessions Sessions
	Logger   *slog.Logger
	// Timeout bounds one exchange. Default 5 s.
	Timeout time.Duration
	// MaxConnections at once; more are answered with BUSY. Default 64.
	MaxConnections int
	// Refused is called for each connection that the limit of open files
	// refused. It must not block. May be nil.
	Refused func()
}

// Server answers hand-over requests.
type Server struct {
	options Options
	slots   chan struct{}

	full, refused complaints

	mu     sync.Mutex
	conns  map[*net.UnixConn]struct{} // nil once closed
	active sync.WaitGroup
}

// New makes a server.
func New(o Options) *Server {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{
		options: o,
		slots:   make(chan struct{}, o.MaxConnections),
		conns:   map[*net.UnixConn]struct{}{},
		full:    complaints{log: o.Logger, now: time.Now},
		refused: complaints{log: o.Logger, now: time.Now},
	}
}

// Listener is what Serve needs.
type Listener interface{ Accept() (net.Conn, error) }

// Serve answers until the listener is closed; then it returns nil.
func (s *Server) Serve(l Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hand-over socket: %w", err)
		}
		u := c.(*net.UnixConn)
		select {
		case s.slots <- struct{}{}:
		default:
			s.refuse(u, fault.New(fault.Busy, "", "too many hand-overs at once").With(nil, s.options.MaxConnections))
			_ = u.Close()
			continue
		}
		if !s.enter(u) {
			<-s.slots
			_ = u.Close()
			continue
		}
		go func() {
			defer s.leave(u)
			if serve := s.exchange(u); serve != nil {
				serve()
			} else {
				_ = u.Close()
			}
		}()
	}
}

// Refuse answers a connection at the limit of open files (server/listen).
func (s *Server) Refuse(u *net.UnixConn) {
	if s.options.Refused != nil {
		s.options.Refused()
	}
	s.full.say(slog.LevelError, "limit of open files reached: a connection was refused; raise LimitNOFILE")
	s.refuse(u, fault.New(fault.Full, "", "the daemon has reached its limit of open files; raise LimitNOFILE"))
}

// refuse answers in the goroutine that accepts, so it waits next to nothing: a
// few bytes fit into the buffer of a fresh connection. It takes the request, if
// it comes soon, because a client whose write fails does not read the answer.
func (s *Server) refuse(u *net.UnixConn, err error) {
	_ = u.SetDeadline(time.Now().Add(20 * time.Millisecond))
	_, _ = u.Write(appendRefusal(nil, err))
	_, _ = io.ReadFull(u, make([]byte, requestSize))
}

func (s *Server) enter(u *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[u] = struct{}{}
	s.active.Add(1)
	return true
}

func (s *Server) leave(u *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, u)
	s.mu.Unlock()
	<-s.slots
	s.active.Done()
}

// Close ends all exchanges and waits for them. The listener is the caller's.
func (s *Server) Close() {
	s.mu.Lock()
	for u := range s.conns {
		_ = u.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.active.Wait()
}

// exchange answers one request. It returns what is to run a connection that
// has become a lane.
func (s *Server) exchange(u *net.UnixConn) (serve func()) {
	_ = u.SetDeadline(time.Now().Add(s.options.Timeout))
	id, err := auth.PeerIdentity(u)
	if err != nil {
		s.refused.say(slog.LevelWarn, "hand-over refused", "error", err)
		return nil
	}
	defer id.Process.Unref()
	serve, err = s.serve(u, id)
	if err != nil {
		s.refused.say(slog.LevelWarn, "hand-over refused", "caller", id.String(), "error", err)
		_, _ = u.Write(appendRefusal(nil, err))
	}
	return serve
}

// serve answers one request; an error that it returns has not been answered.
// lane runs the lane that was asked for, if one was.
func (s *Server) serve(u *net.UnixConn, id auth.Identity) (lane func(), err error) {
	var buf [requestSize]byte
	n, err := io.ReadFull(u, buf[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fault.Wrap(fault.Unavailable, err, "", "the request did not come in time")
	}
	wantsLane, token, err := parseRequest(buf[:n])
	if err != nil {
		return nil, err
	}
	session, err := s.options.Sessions.ByToken(token, id)
	if err != nil {
		return nil, err
	}
	if !wantsLane {
		return nil, s.hand(u, session)
	}
	if lane, err = session.Lane(u); err != nil {
		return nil, err
	}
	// Where the answer does not get through, the lane finds out by itself.
	_, _ = u.Write(appendReply(nil, 0, 0, ""))
	_ = u.SetDeadline(time.Time{})
	return lane, nil
}

// hand gives the session's descriptors away.
func (s *Server) hand(u *net.UnixConn, session Session) error {
	r, w, err := os.Pipe()
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return fault.Wrap(fault.Full, err, "", "the daemon has reached its limit of open files; raise LimitNOFILE")
		}
		return fault.Wrap(fault.Unavailable, err, "", "lifetime pipe")
	}
	defer w.Close()
	fds, done, err := session.Handover(r)
	if err != nil {
		return err
	}
	defer done()
	// A copy: the protocol's order is the session's fds, then the pipe.
	fds = append(fds[:len(fds):len(fds)], int(w.Fd()))
	if len(fds) > MaxDescriptors {
		return fault.New(fault.Invalid, "host.segment_bytes", "too many segments for one message").With(len(fds)-1, MaxDescriptors-1)
	}
	if _, _, err := u.WriteMsgUnix(appendReply(nil, 0, len(fds), ""), unix.UnixRights(fds...), nil); err != nil {
		return fault.Wrap(fault.Unavailable, err, "", "sending descriptors")
	}
	return nil
}
