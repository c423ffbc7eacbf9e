package client

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// fake is a daemon that keeps parts where they were written, forever, and does
// what a test tells it through before.
type fake struct {
	t       *testing.T
	dir     string
	stop    func() // ends the server and waits for it
	segment int    // memfd
	mem     []byte
	limits  *larderv1.Limits

	// before sees each request; true = the test has handled it.
	before func(*fakeSession, *larderv1.SessionRequest) bool
	// refuse is the answer to hellos.
	refuse *larderv1.Error
	// put and get answer Objects calls.
	put func(grpc.BidiStreamingServer[larderv1.PutRequest, larderv1.PutResponse]) error
	get func(*larderv1.GetRequest, grpc.ServerStreamingServer[larderv1.GetResponse]) error
	// handoverStatus other than 0 refuses the hand-over.
	handoverStatus byte
	// most is how many slots the session may have, of the out that it has; 0: any.
	most, out int

	mu       sync.Mutex
	next     uint64
	chunks   map[string]map[uint32]*larderv1.LeasedPart
	holds    map[uint64][]string
	hellos   []*larderv1.Hello
	requests []*larderv1.SessionRequest
	pipes    []int // read ends of the lifetime pipes
	session  *fakeSession
	wakeup   chan struct{} // closed and replaced at each change
}

type fakeSession struct {
	f      *fake
	mu     sync.Mutex
	stream larderv1.Engine_SessionServer
	cancel context.CancelFunc
}

const (
	fakePartBytes    = 8192
	fakeSegmentBytes = 8 << 20
)

func (s *fakeSession) send(r *larderv1.SessionResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.stream.Send(r)
}

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, dir: t.TempDir(), chunks: make(map[string]map[uint32]*larderv1.LeasedPart),
		holds: make(map[uint64][]string), wakeup: make(chan struct{}),
		limits: &larderv1.Limits{
			MaxInFlight: 64, MaxMessageBytes: 4 << 20, MaxMatchChunks: 4096, MaxParts: 64, MaxCredits: 1024, MaxHolds: 64,
			HoldDefaultMs: 1000, HoldMaxMs: 10000, LeaseMs: 1000, RevokeGraceMs: 1000,
		},
	}
	var err error
	f.segment, err = unix.MemfdCreate("fake", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(f.segment, fakeSegmentBytes))
	f.mem, err = unix.Mmap(f.segment, 0, fakeSegmentBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Munmap(f.mem); _ = unix.Close(f.segment); closeAll(f.pipes) })
	f.serveHandover()
	f.start()
	return f
}

func (f *fake) socket() string { return filepath.Join(f.dir, "d.sock") }

func (f *fake) start() {
	l, err := net.Listen("unix", f.socket())
	require.NoError(f.t, err)
	srv := grpc.NewServer()
	larderv1.RegisterEngineServer(srv, &fakeEngine{f: f})
	larderv1.RegisterObjectsServer(srv, &fakeObjects{f: f})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	f.stop = func() { srv.Stop(); <-done }
	f.t.Cleanup(f.stop)
}

func (f *fake) serveHandover() {
	accept(f.t, filepath.Join(f.dir, "h.sock"), f.handover)
}

// accept listens and serves one connection after the other, until the test ends.
func accept(t *testing.T, path string, serve func(*net.UnixConn)) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			serve(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { require.NoError(t, l.Close()); <-done })
}

func (f *fake) handover(c *net.UnixConn) {
	buf := make([]byte, 36)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf[:4]) != "LDH1" {
		return
	}
	if f.handoverStatus != 0 {
		text := "not for you"
		reply := binary.LittleEndian.AppendUint16([]byte{f.handoverStatus}, 0)
		reply = binary.LittleEndian.AppendUint32(reply, uint32(len(text)))
		_, _ = c.Write(append(reply, text...))
		return
	}
	var p [2]int
	if unix.Pipe2(p[:], unix.O_CLOEXEC) != nil {
		return
	}
	f.mu.Lock()
	f.pipes = append(f.pipes, p[0])
	f.mu.Unlock()
	reply := binary.LittleEndian.AppendUint16([]byte{0}, 2)
	reply = binary.LittleEndian.AppendUint32(reply, 0)
	_, _, _ = c.WriteMsgUnix(reply, unix.UnixRights(f.segment, p[1]), nil)
	_ = unix.Close(p[1])
}

type fakeObjects struct {
	larderv1.UnimplementedObjectsServer
	f *fake
}

func (o *fakeObjects) Put(s grpc.BidiStreamingServer[larderv1.PutRequest, larderv1.PutResponse]) error {
	return o.f.put(s)
}

func (o *fakeObjects) Get(r *larderv1.GetRequest, s grpc.ServerStreamingServer[larderv1.GetResponse]) error {
	return o.f.get(r, s)
}

type fakeEngine struct {
	larderv1.UnimplementedEngineServer
	f *fake
}

func (e *fakeEngine) Session(stream larderv1.Engine_SessionServer) error {
	f := e.f
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := &fakeSession{f: f, stream: stream, cancel: cancel}
	f.mu.Lock()
	f.hellos = append(f.hellos, first.GetHello())
	refuse := f.refuse
	f.session = s
	f.mu.Unlock()
	if refuse != nil {
		s.send(&larderv1.SessionResponse{Id: first.GetId(), Body: &larderv1.SessionResponse_Error{Error: refuse}})
		return nil
	}
	token := make([]byte, 32)
	token[0] = byte(len(f.hellos))
	s.send(&larderv1.SessionResponse{Id: first.GetId(), Body: &larderv1.SessionResponse_Hello{Hello: &larderv1.HelloReply{
		Major: 1, SessionId: 1, SessionToken: token, TenantKey: make([]byte, 32), Limits: f.limits, Daemon: "fake",
		Arena: &larderv1.ArenaInfo{Mode: larderv1.ArenaMode_ARENA_MODE_SHARED, HandoverSocket: filepath.Join(f.dir, "h.sock"), SegmentBytes: []uint64{fakeSegmentBytes}},
		Parts: []*larderv1.PartSpec{{RawLength: fakePartBytes, Layers: 1}, {HeadGroup: 1, RawLength: fakePartBytes, Layers: 1}},
	}}})
	received := make(chan *larderv1.SessionRequest)
	go func() {
		defer close(received)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case received <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-received:
			if !ok {
				return nil
			}
			f.mu.Lock()
			f.requests = append(f.requests, m)
			before := f.before
			close(f.wakeup)
			f.wakeup = make(chan struct{})
			f.mu.Unlock()
			if before == nil || !before(s, m) {
				s.answer(m)
			}
		}
	}
}

// await waits until a request that fits was received, and returns it.
func (f *fake) await(fits func(*larderv1.SessionRequest) bool) *larderv1.SessionRequest {
	limit := time.After(patience)
	for {
		f.mu.Lock()
		for _, m := range f.requests {
			if fits(m) {
				f.mu.Unlock()
				return m
			}
		}
		wakeup := f.wakeup
		f.mu.Unlock()
		select {
		case <-wakeup:
		case <-limit:
			require.FailNow(f.t, "the request did not come")
		}
	}
}

func (f *fake) setBefore(before func(*fakeSession, *larderv1.SessionRequest) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

func (f *fake) current() *fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session
}

// answer is what a daemon without troubles does.
func (s *fakeSession) answer(m *larderv1.SessionRequest) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &larderv1.SessionResponse{Id: m.GetId()}
	deadline := uint64(monotonic() + int64(time.Minute))
	switch b := m.GetBody().(type) {
	case *larderv1.SessionRequest_Credits:
		reply := &larderv1.CreditsReply{LimitBytes: uint64(f.most) * fakePartBytes}
		for _, w := range b.Credits.GetWant() {
			for range w.GetCount() {
				if f.most > 0 && f.out == f.most {
					break
				}
				f.next++
				f.out++
				reply.Granted = append(reply.Granted, &larderv1.GrantedSlot{DeadlineNs: deadline, Slot: &larderv1.Slot{
					Offset: f.next * fakePartBytes % fakeSegmentBytes, Length: fakePartBytes, Generation: uint32(f.next),
				}})
			}
		}
		r.Body = &larderv1.SessionResponse_Credits{Credits: reply}
	case *larderv1.SessionRequest_Commit:
		reply := &larderv1.CommitReply{}
		for _, c := range b.Commit.GetChunks() {
			f.out -= len(c.GetParts())
			for _, p := range c.GetParts() {
				parts := f.chunks[string(c.GetKey())]
				if parts == nil {
					parts = make(map[uint32]*larderv1.LeasedPart)
					f.chunks[string(c.GetKey())] = parts
				}
				parts[p.GetPart()] = &larderv1.LeasedPart{Part: p.GetPart(), Slot: p.GetSlot(), Length: p.GetLength()}
				o := larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT
				if len(parts) == 2 {
					o = larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED
				}
				reply.Outcomes = append(reply.Outcomes, o)
			}
		}
		r.Body = &larderv1.SessionResponse_Commit{Commit: reply}
	case *larderv1.SessionRequest_Match:
		reply := &larderv1.MatchReply{}
		var held []string
		for k := b.Match.GetKeys(); len(k) > 0 && len(f.chunks[string(k[:32])]) == 2; k = k[32:] {
			reply.Chunks++
			held = append(held, string(k[:32]))
		}
		if len(held) > 0 && b.Match.GetHoldMs() != noHold {
			reply.HoldId = uint64(len(f.holds) + 1)
			f.holds[reply.HoldId] = held
		}
		r.Body = &larderv1.SessionResponse_Match{Match: reply}
	case *larderv1.SessionRequest_Load:
		s.load(m.GetId(), b.Load, deadline)
		return
	case *larderv1.SessionRequest_Release:
		r.Body = &larderv1.SessionResponse_Release{Release: &larderv1.ReleaseReply{Confirmed: true}}
	case *larderv1.SessionRequest_RenewHold:
		r.Body = &larderv1.SessionResponse_RenewHold{RenewHold: &larderv1.RenewHoldReply{HoldDeadlineNs: deadline}}
	case *larderv1.SessionRequest_EndHolds:
		for _, id := range b.EndHolds.GetHoldIds() {
			delete(f.holds, id)
		}
		r.Body = &larderv1.SessionResponse_EndHolds{EndHolds: &larderv1.EndHoldsReply{}}
	case *larderv1.SessionRequest_Prefetch:
		r.Body = &larderv1.SessionResponse_Prefetch{Prefetch: &larderv1.PrefetchReply{Resident: 3}}
	case *larderv1.SessionRequest_ReturnCredits:
		f.out -= len(b.ReturnCredits.GetSlots())
		r.Body = &larderv1.SessionResponse_ReturnCredits{ReturnCredits: &larderv1.ReturnCreditsReply{}}
	case *larderv1.SessionRequest_RevokeAnswer:
		r.Body = &larderv1.SessionResponse_RevokeAnswer{RevokeAnswer: &larderv1.RevokeAnswerReply{}}
	}
	s.send(r)
}

// load answers chunk by chunk; the caller holds f.mu.
func (s *fakeSession) load(id uint64, l *larderv1.Load, deadline uint64) {
	keys, ok := s.f.holds[l.GetHoldId()]
	if !ok {
		s.send(&larderv1.SessionResponse{Id: id, Body: &larderv1.SessionResponse_Error{Error: &larderv1.Error{
			Kind: larderv1.ErrorKind_ERROR_KIND_MISS, Message: "no such hold", Field: "load.hold_id",
		}}})
		return
	}
	list := l.GetParts()
	if len(list) == 0 {
		list = []uint32{0, 1}
	}
	for i := range l.GetChunks() {
		chunk := l.GetFirstChunk() + i
		reply := &larderv1.LoadReply{DeadlineNs: deadline, Done: i+1 == l.GetChunks()}
		for _, p := range list {
			stored := s.f.chunks[keys[chunk]][p]
			reply.Ready = append(reply.Ready, &larderv1.LeasedPart{Chunk: chunk, Part: p, Slot: stored.GetSlot(), Length: stored.GetLength()})
		}
		s.send(&larderv1.SessionResponse{Id: id, Body: &larderv1.SessionResponse_Load{Load: reply}})
	}
}
