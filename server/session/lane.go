package session

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"

	"google.golang.org/protobuf/proto"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/handover"
)

// laneBuffer holds the usual requests whole; larger ones are copied once.
const laneBuffer = 32 << 10

// lane carries a session's messages instead of its stream: the same messages,
// each behind its length, on a Unix socket. The stream stays and says how the
// session ends.
type lane struct {
	conn net.Conn
	// frame is the one being sent; under session.sendMu.
	frame []byte
}

// Lane implements handover.Session.
func (s *session) Lane(conn net.Conn) (serve func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return nil, noSession()
	case s.service.options.NoLanes:
		return nil, fault.New(fault.Invalid, "session.lanes", "lanes are off")
	case s.laned.Load():
		return nil, fault.New(fault.Invalid, "lane", "the session has a lane")
	}
	s.laned.Store(true)
	s.work.Add(1)
	return func() { go s.serveLane(conn) }, nil
}

func (s *session) serveLane(conn net.Conn) {
	defer s.work.Done()
	// Ends reads and writes that wait, and those to come.
	stop := context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	s.sendMu.Lock()
	s.lane = &lane{conn: conn}
	s.sendMu.Unlock()
	err := s.read(s.fromLane(bufio.NewReaderSize(conn, laneBuffer)))
	if s.ctx.Err() == nil {
		// Otherwise the session has ended for a reason of its own, which closed
		// the lane.
		s.kill(err)
	}
	if stop() {
		_ = conn.Close()
	}
}

func (s *session) fromLane(r *bufio.Reader) func(*inbound) error {
	var large []byte
	return func(in *inbound) error {
		b, err := readFrame(r, s.service.options.Limits.MaxMessageBytes, &large)
		if err != nil {
			return err
		}
		in.size, in.err = len(b), proto.Unmarshal(b, &in.request)
		return nil
	}
}

// readFrame returns the next message, valid until the next call. io.EOF is an
// end between two frames.
func readFrame(r *bufio.Reader, limit int, large *[]byte) ([]byte, error) {
	head, err := r.Peek(handover.FrameHead)
	switch {
	case err == nil:
	case len(head) == 0 && errors.Is(err, io.EOF):
		return nil, io.EOF
	default:
		return nil, halfFrame(err)
	}
	n := binary.LittleEndian.Uint32(head)
	if uint64(n) > uint64(limit) {
		return nil, fault.New(fault.Invalid, "message", "the message is too large").With(n, limit)
	}
	whole := handover.FrameHead + int(n)
	if whole <= r.Size() {
		b, err := r.Peek(whole)
		if err != nil {
			return nil, halfFrame(err)
		}
		_, _ = r.Discard(whole) // it is all there
		return b[handover.FrameHead:], nil
	}
	_, _ = r.Discard(handover.FrameHead)
	if cap(*large) < int(n) {
		*large = make([]byte, n)
	}
	b := (*large)[:n]
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, halfFrame(err)
	}
	return b, nil
}

// halfFrame does not wrap: an io.EOF in it would read as a clean end.
func halfFrame(err error) error {
	return fault.New(fault.Unavailable, "lane", "the lane ended inside a message: %v", err)
}

// send writes one message; the session's sendMu is held. A client that does
// not read makes it wait, until the session ends.
func (l *lane) send(r *larderv1.SessionResponse) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(append(l.frame[:0], 0, 0, 0, 0), r)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-handover.FrameHead))
	if cap(b) <= laneBuffer {
		l.frame = b
	}
	_, err = l.conn.Write(b)
	return err
}

// Lanes counts the sessions that have one.
func (v *Service) Lanes() int {
	n := 0
	for _, s := range v.snapshot() {
		if s.laned.Load() {
			n++
		}
	}
	return n
}
