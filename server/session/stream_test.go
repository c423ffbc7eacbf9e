package session_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

// requireEnd expects the daemon to end the stream with an error of a kind.
func requireEnd(t *testing.T, err error, kind larderv1.ErrorKind, text string) {
	t.Helper()
	st := status.Convert(err)
	require.Len(t, st.Details(), 1, "%v", err)
	e := st.Details()[0].(*larderv1.Error)
	require.Equal(t, kind, e.GetKind(), "%v", err)
	require.Contains(t, e.GetMessage()+e.GetField()+e.GetValue(), text)
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (bytesCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (bytesCodec) Name() string                         { return "proto" }

// Messages that are none, and bytes that are no HTTP/2, end only the stream or
// connection they came on.
func TestGarbage(t *testing.T) {
	w := newWorld(t, defaults())
	good := w.connect()
	random := rand.New(rand.NewPCG(1, 2))
	junk := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	cc, err := grpc.NewClient("unix:"+w.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, b := range [][]byte{{}, {0xff}, junk(10), junk(1000), bytes.Repeat([]byte{0x0a}, 5000)} {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
			larderv1.Engine_Session_FullMethodName, grpc.ForceCodecV2(bytesCodec{}))
		require.NoError(t, err)
		require.NoError(t, s.SendMsg(b))
		requireEnd(t, s.RecvMsg(nil), larderv1.ErrorKind_ERROR_KIND_INVALID, "")
	}
	for range 20 {
		c, err := net.Dial("unix", w.socket)
		require.NoError(t, err)
		_, _ = c.Write(junk(500))
		require.NoError(t, c.Close())
	}
	require.Zero(t, good.Match(good.Prompt(1, 2)).GetChunks())
	w.settled(1, 0)
}

func TestStreamsThatBreakTheProtocol(t *testing.T) {
	w := newWorld(t, defaults())
	for name, c := range map[string]struct {
		before  bool // hello first
		request *larderv1.SessionRequest
		text    string
	}{
		"no hello":      {false, rawtest.CreditsRequest(1, 1), "hello"},
		"no id":         {true, &larderv1.SessionRequest{}, "id"},
		"huge id":       {true, &larderv1.SessionRequest{Id: 1 << 63}, "9223372036854775808"},
		"second hello":  {true, &larderv1.SessionRequest{Id: 9, Body: &larderv1.SessionRequest_Hello{Hello: rawtest.Hello()}}, "second"},
		"large message": {true, &larderv1.SessionRequest{Id: 9, Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Keys: make([]byte, 3<<20)}}}, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.open()
			if c.before {
				r.Greet()
			}
			if c.request.Id == 0 && !c.before {
				c.request.Id = 1
			}
			require.NoError(t, r.Stream.Send(c.request))
			_, err := r.Stream.Recv()
			for err == nil {
				_, err = r.Stream.Recv()
			}
			requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_INVALID, c.text)
		})
	}
	w.settled(0, 0)
}

// A request that this version does not know is refused; the session goes on.
func TestUnknownRequest(t *testing.T) { overBoth(t, testUnknownRequest) }

func testUnknownRequest(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	c := w.connect()
	r := c.Call(&larderv1.SessionRequest{})
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, r.GetError().GetKind())
	require.Zero(t, c.Match(c.Prompt(1, 1)).GetChunks())
}

func TestSilentStreamIsEnded(t *testing.T) {
	s := defaults()
	s.limits.Hello = 10 * time.Millisecond
	w := newWorld(t, s)
	r := w.open()
	_, err := r.Stream.Recv()
	requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "no hello")
	w.settled(0, 0)
}

// slow is an arena whose verification waits for the test.
type slow struct {
	session.Arena
	entered chan struct{}
	open    chan struct{}
	once    sync.Once
}

func (s *slow) Verify(l arena.Leased) error {
	first := false
	s.once.Do(func() { first = true })
	if first {
		s.entered <- struct{}{}
		<-s.open
	}
	return s.Arena.Verify(l)
}

// While one load is being verified, the same session commits, matches and
// loads.
func TestNothingWaitsForALoad(t *testing.T) { overBoth(t, testNothingWaitsForALoad) }

func testNothingWaitsForALoad(t *testing.T, lane bool) {
	s := over(lane)
	s.checkers = 1
	gate := &slow{entered: make(chan struct{}), open: make(chan struct{})}
	s.wrap = func(a session.Arena) session.Arena { gate.Arena = a; return gate }
	w := newWorld(t, s)
	c := w.connect()
	p := c.Prompt(1, 4)
	c.Store(p, 0, 2)
	m := c.Match(p)
	require.EqualValues(t, 2, m.GetChunks())
	load := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 2}}})
	<-gate.entered

	c.Store(p, 2, 4)
	c.Check(p, 4)
	// Release before it is done: not confirmed, and the load stops.
	require.False(t, c.Release(load))
	close(gate.open)
	r := c.Recv()
	for !r.GetLoad().GetDone() {
		r = c.Recv()
	}
	require.Equal(t, load, r.Id)
	require.NotEmpty(t, r.GetLoad().GetFailed(), "the second chunk was not wanted any more")
	require.Zero(t, w.arena.Stats().Leased)
	require.NoError(t, c.End())
	w.settled(0, 0)
}

// While one part of a load is being checked, another processor checks the others.
func TestPartsAreCheckedSideBySide(t *testing.T) {
	s := defaults()
	s.checkers = 2
	gate := &slow{entered: make(chan struct{}), open: make(chan struct{})}
	s.wrap = func(a session.Arena) session.Arena { gate.Arena = a; return gate }
	w := newWorld(t, s)
	c := w.connect()
	p := c.Prompt(1, 4)
	c.Store(p, 0, 4)
	m := c.Match(p)
	load := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 4}}})
	<-gate.entered
	require.Eventually(t, func() bool { return w.arena.Stats().VerifiedParts == 4*rawtest.Parts-1 }, time.Minute, time.Millisecond)
	close(gate.open)
	r := c.Recv()
	require.True(t, r.GetLoad().GetDone())
	require.Len(t, r.GetLoad().GetReady(), 4*rawtest.Parts)
	for i, part := range r.GetLoad().GetReady() {
		require.EqualValues(t, i/rawtest.Parts, part.GetChunk())
		require.EqualValues(t, i%rawtest.Parts, part.GetPart())
	}
	require.True(t, c.Release(load))
}

// A load of several batches: parts come in order, each once, the last reply
// has done set, and all replies tell one deadline.
func TestLoadComesInBatches(t *testing.T) { overBoth(t, testLoadComesInBatches) }

func testLoadComesInBatches(t *testing.T, lane bool) {
	s := over(lane)
	s.arena.Budget, s.arena.SegmentBytes = 16<<20, 16<<20
	s.limits.MaxParts, s.limits.MaxCredits = 256, 256
	w := newWorld(t, s)
	c := w.connect()
	const chunks = 64 // 8 MiB
	p := c.Prompt(1, chunks)
	for i := 0; i < chunks; i += 16 {
		c.Store(p, i, i+16)
	}
	m := c.Match(p)
	id := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: chunks}}})
	var sizes []int
	next := 0
	deadline := uint64(0)
	for done := false; !done; {
		r := c.Recv()
		require.Equal(t, id, r.Id)
		l := r.GetLoad()
		for _, part := range l.GetReady() {
			require.EqualValues(t, next/rawtest.Parts, part.GetChunk())
			require.EqualValues(t, next%rawtest.Parts, part.GetPart())
			next++
		}
		if deadline == 0 {
			deadline = l.GetDeadlineNs()
		}
		require.Equal(t, deadline, l.GetDeadlineNs())
		sizes = append(sizes, len(l.GetReady()))
		done = l.GetDone()
	}
	require.Equal(t, chunks*rawtest.Parts, next)
	require.Greater(t, len(sizes), 1, "%v", sizes)
	require.LessOrEqual(t, sizes[0]*rawtest.PartBytes, 2<<20, "the first batch is small")
	require.True(t, c.Release(id))
}

// Commits beyond the in-flight limit are BUSY, and their slots come back.
func TestTooManyCommits(t *testing.T) { overBoth(t, testTooManyCommits) }

func testTooManyCommits(t *testing.T, lane bool) {
	s := over(lane)
	s.limits.MaxInFlight = 1
	s.limits.MaxCredits = 64
	gate := &slow{entered: make(chan struct{}), open: make(chan struct{})}
	s.wrap = func(a session.Arena) session.Arena { gate.Arena = a; return gate }
	w := newWorld(t, s)
	c := w.connect()
	p := c.Prompt(1, 8)
	c.Store(p, 0, 2)
	m := c.Match(p)
	load := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 2}}})
	<-gate.entered
	busy := c.Commit(c.Fill(p, 2, 8, 0, 1))
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_BUSY, busy.GetError().GetKind(), "%v", busy)
	require.Equal(t, "1", busy.GetError().GetLimit())
	require.Zero(t, w.arena.Stats().Granted)
	close(gate.open)
	r := c.Recv()
	for !r.GetLoad().GetDone() {
		r = c.Recv()
	}
	require.True(t, c.Release(load))
	c.Store(p, 2, 8)
}

// A client that does not read is no one else's problem, and loses its session
// when it must answer and does not.
func TestClientThatDoesNotRead(t *testing.T) { overBoth(t, testClientThatDoesNotRead) }

func testClientThatDoesNotRead(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	a, b := w.connect(), w.connect()
	a.Credits(1)
	p := b.Prompt(1, 4)
	// Answers pile up until the daemon's sends to a wait; then our own do.
	full := make(chan struct{})
	stop := make(chan struct{})
	var sent sync.WaitGroup
	sent.Go(func() {
		m := &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{
			Root: p.Root[:], Keys: keys.List(p.Keys), HoldMs: 1<<32 - 1,
		}}}
		for id := uint64(1000); ; id++ {
			m.Id = id
			done := make(chan error, 1)
			go func() { done <- a.Stream.Send(m) }()
			select {
			case err := <-done:
				if err != nil {
					return
				}
			case <-time.After(300 * time.Millisecond):
				close(full)
				select {
				case <-done:
				case <-stop:
					<-done
				}
				return
			}
		}
	})
	<-full
	b.Store(p, 0, 4)
	b.Check(p, 4)
	w.advance(10*time.Second + 1)
	w.advance(2*time.Second + 1)
	w.settled(1, 1)
	b.Check(p, 4)
	close(stop)
	a.Abandon()
	sent.Wait()
}
