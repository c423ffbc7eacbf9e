package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// raw is a session stream without a client around it, which says what it
// wants.
type raw struct {
	t      *testing.T
	stream larderv1.Engine_SessionClient
	id     uint64
}

func openRaw(t *testing.T, d *daemon.Daemon) *raw {
	t.Helper()
	conn, err := client.Conn(client.Endpoint{Socket: d.Socket})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	stream, err := larderv1.NewEngineClient(conn).Session(ctx, grpc.WaitForReady(true))
	require.NoError(t, err)
	return &raw{t: t, stream: stream}
}

func helloOf(namespace []byte) *larderv1.Hello {
	sum := sha256.Sum256(namespace)
	return &larderv1.Hello{
		Major: 1, InstanceId: bytes.Repeat([]byte{7}, 16), Role: larderv1.Role_ROLE_CLIENT, Namespace: namespace, Fingerprint: sum[:],
		Ranks: &larderv1.Ranks{DataSize: 1, PipelineSize: 1, TensorSize: 1},
	}
}

func (r *raw) hello() *larderv1.HelloReply {
	r.t.Helper()
	reply := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Hello{Hello: helloOf(namespaceBytes())}})
	require.NotNil(r.t, reply.GetHello(), "%v", reply)
	return reply.GetHello()
}

// ask sends a request and returns the reply to it, skipping events.
func (r *raw) ask(m *larderv1.SessionRequest) *larderv1.SessionResponse {
	r.t.Helper()
	r.id++
	m.Id = r.id
	require.NoError(r.t, r.stream.Send(m))
	for {
		reply, err := r.stream.Recv()
		require.NoError(r.t, err)
		if reply.GetId() == r.id {
			return reply
		}
	}
}

func (r *raw) grant(n int) []*larderv1.GrantedSlot {
	r.t.Helper()
	reply := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Credits{Credits: &larderv1.Credits{
		Want: []*larderv1.CreditRequest{{Length: uint64(shape.PartBytes), Count: uint32(n)}},
	}}})
	require.Len(r.t, reply.GetCredits().GetGranted(), n)
	return reply.GetCredits().GetGranted()
}

// commit commits one part and returns its outcome and error.
func (r *raw) commit(p workload.Prompt, part uint32, slot *larderv1.Slot, length int) (larderv1.CommitOutcome, *larderv1.Error) {
	r.t.Helper()
	key, parent := p.Key(0), p.Root
	reply := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Commit{Commit: &larderv1.Commit{Chunks: []*larderv1.CommitChunk{{
		Key: key[:], Parent: parent[:], Tokens: workload.ChunkTokens,
		Parts: []*larderv1.CommitPart{{Part: part, Slot: slot, Length: uint64(length)}},
	}}}}})
	require.Len(r.t, reply.GetCommit().GetOutcomes(), 1, "%v", reply)
	if len(reply.GetCommit().GetErrors()) == 0 {
		return reply.GetCommit().GetOutcomes()[0], nil
	}
	return reply.GetCommit().GetOutcomes()[0], reply.GetCommit().GetErrors()[0].GetError()
}

// What a client may not commit is rejected, with a reason, and harms nobody.
func TestHostileCommits(t *testing.T) {
	d := start(t, arenaBytes)
	good := connect(t, d)
	p := workload.NewPrompt(1, 1)
	store(t, good, p)
	r, other := openRaw(t, d), openRaw(t, d)
	r.hello()
	other.hello()
	slots := r.grant(3)
	theirs := other.grant(1)[0].GetSlot()
	mine := slots[0].GetSlot()
	older := &larderv1.Slot{Segment: mine.GetSegment(), Offset: mine.GetOffset(), Length: mine.GetLength(), Generation: mine.GetGeneration() - 1}
	q := workload.NewPrompt(2, 1)
	for name, slot := range map[string]*larderv1.Slot{
		"never granted":          {Offset: 4 << 20, Length: uint64(shape.PartBytes), Generation: 1},
		"outside of the arena":   {Segment: 77, Offset: 1 << 60, Length: uint64(shape.PartBytes), Generation: 1},
		"of another session":     theirs,
		"of an older generation": older,
		"no slot at all":         nil,
	} {
		outcome, err := r.commit(q, 0, slot, shape.PartBytes)
		require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, outcome, name)
		require.NotEmpty(t, err.GetMessage(), name)
	}
	outcome, err := r.commit(q, 0, slots[1].GetSlot(), shape.PartBytes-4096)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, outcome, "wrong part size")
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, err.GetKind())
	require.NotEmpty(t, err.GetLimit())
	outcome, err = r.commit(q, 9, slots[2].GetSlot(), shape.PartBytes)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, outcome, "no such part")
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, err.GetKind())
	// The slot itself is still good, once.
	outcome, _ = r.commit(q, 0, mine, shape.PartBytes)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT, outcome)
	outcome, err = r.commit(q, 0, mine, shape.PartBytes)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, outcome, "twice")
	require.NotEmpty(t, err.GetMessage())
	// The other session's slot is still its own.
	outcome, _ = other.commit(workload.NewPrompt(3, 1), 0, theirs, shape.PartBytes)
	require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT, outcome)
	requireLoaded(t, good, p)
}

func TestHostileLoads(t *testing.T) {
	d := start(t, arenaBytes)
	good := connect(t, d)
	p := workload.NewPrompt(1, 1)
	store(t, good, p)
	r := openRaw(t, d)
	r.hello()
	load := func(l *larderv1.Load) *larderv1.SessionResponse {
		return r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: l}})
	}
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_MISS, load(&larderv1.Load{HoldId: 999, Chunks: 1}).GetError().GetKind(), "no such hold")
	m := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: p.Root[:], Keys: p.Keys}}}).GetMatch()
	require.EqualValues(t, 1, m.GetChunks())
	for name, l := range map[string]*larderv1.Load{
		"beyond the hold":  {HoldId: m.GetHoldId(), FirstChunk: 1, Chunks: 1},
		"overflow":         {HoldId: m.GetHoldId(), FirstChunk: 1<<32 - 1, Chunks: 1<<32 - 1},
		"no such part":     {HoldId: m.GetHoldId(), Chunks: 1, Parts: []uint32{2}},
		"part named twice": {HoldId: m.GetHoldId(), Chunks: 1, Parts: []uint32{1, 1}},
	} {
		require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, load(l).GetError().GetKind(), name)
	}
	reply := load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1})
	require.Len(t, reply.GetLoad().GetReady(), 2)
	id := r.id
	release := func() *larderv1.SessionResponse {
		return r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Release{Release: &larderv1.Release{LoadId: id}}})
	}
	require.True(t, release().GetRelease().GetConfirmed())
	require.False(t, release().GetRelease().GetConfirmed(), "a second release confirms nothing")
	unknown := workload.NewPrompt(9, 3)
	m = r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: unknown.Root[:], Keys: unknown.Keys}}}).GetMatch()
	require.Zero(t, m.GetChunks(), "unknown keys")
	require.Zero(t, m.GetHoldId())
}

func TestHostileHellos(t *testing.T) {
	d := start(t, arenaBytes)
	for name, c := range map[string]struct {
		change func(*larderv1.Hello)
		says   string
	}{
		"other major version":              {func(h *larderv1.Hello) { h.Major = 2 }, "major"},
		"fingerprint of another namespace": {func(h *larderv1.Hello) { h.Fingerprint[0] ^= 1 }, "fingerprint"},
		"namespace that is noise":          {func(h *larderv1.Hello) { *h = *helloOf([]byte("noise")) }, "namespace"},
		"no instance":                      {func(h *larderv1.Hello) { h.InstanceId = nil }, "instance_id"},
		"no role":                          {func(h *larderv1.Hello) { h.Role = 0 }, "role"},
	} {
		r := openRaw(t, d)
		h := helloOf(namespaceBytes())
		c.change(h)
		e := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Hello{Hello: h}}).GetError()
		require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, e.GetKind(), name)
		require.Contains(t, e.GetField()+e.GetMessage(), c.says, name)
	}
	// Two hellos, and anything else first, end the stream.
	for name, first := range map[string]bool{"a second hello": true, "no hello": false} {
		r := openRaw(t, d)
		if first {
			r.hello()
		}
		m := &larderv1.SessionRequest{Id: 9, Body: &larderv1.SessionRequest_Hello{Hello: helloOf(namespaceBytes())}}
		if !first {
			m.Body = &larderv1.SessionRequest_EndHolds{EndHolds: &larderv1.EndHolds{}}
		}
		require.NoError(t, r.stream.Send(m))
		_, err := r.stream.Recv()
		require.ErrorIs(t, client.FromStatus(err), fault.Invalid, name)
	}
	store(t, connect(t, d), workload.NewPrompt(1, 1))
}

// Sessions and hand-overs that send noise end; the daemon and everybody else
// go on.
func TestGarbage(t *testing.T) {
	d := start(t, arenaBytes)
	good := connect(t, d)
	p := workload.NewPrompt(1, 4)
	store(t, good, p)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	preface := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	for i, b := range [][]byte{
		noise(1), noise(5000), preface, append(bytes.Clone(preface), noise(3000)...),
		append(bytes.Clone(preface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1), []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		for _, socket := range []string{d.Socket, d.Socket + ".handover"} {
			conn, err := net.Dial("unix", socket)
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, _ = conn.Write(b)
			if u, ok := conn.(*net.UnixConn); ok {
				require.NoError(t, u.CloseWrite())
			}
			_, _ = io.Copy(io.Discard, conn) // until the daemon closes it
			require.NoError(t, conn.Close(), "case %d", i)
		}
	}
	// A hand-over with a token that nobody has.
	conn, err := net.Dial("unix", d.Socket+".handover")
	require.NoError(t, err)
	_, err = conn.Write(append([]byte("LDH1"), noise(32)...))
	require.NoError(t, err)
	reply, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, byte(fault.Denied), reply[0])
	require.NoError(t, conn.Close())
	// A message that is too large, and one that is no message.
	for _, size := range []int{5 << 20, 12 << 20} {
		r := openRaw(t, d)
		r.hello()
		_ = r.stream.Send(&larderv1.SessionRequest{Id: 50, Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Keys: make([]byte, size)}}})
		_, err = r.stream.Recv()
		require.ErrorIs(t, client.FromStatus(err), fault.Invalid)
	}
	r := openRaw(t, d)
	r.hello()
	require.NoError(t, r.stream.Send(&larderv1.SessionRequest{Id: 51}))
	got, err := r.stream.Recv()
	require.NoError(t, err)
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, got.GetError().GetKind())

	requireLoaded(t, good, p)
	require.EqualValues(t, 1, good.Generation(), "the good client was not disturbed")
}

// Sessions that send as fast as they can and read nothing fill their own
// stream, not the daemon; another client is served meanwhile.
func TestFlood(t *testing.T) {
	d := start(t, arenaBytes, "--session.max_in_flight=16", "--session.max_holds=64")
	good := connect(t, d)
	p := workload.NewPrompt(1, 8)
	store(t, good, p)
	before, err := d.Memory()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	keys := workload.NewPrompt(2, 4096)
	done := make(chan struct{})
	const floods = 4
	var sent atomic.Int64
	for range floods {
		r := openRaw(t, d)
		r.hello()
		go func() {
			defer func() { done <- struct{}{} }()
			for id := uint64(10); ctx.Err() == nil; id++ {
				m := &larderv1.SessionRequest{Id: id}
				switch id % 4 {
				case 0:
					m.Body = &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: p.Root[:], Keys: p.Keys}}
				case 1:
					m.Body = &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: keys.Root[:], Keys: keys.Keys}}
				case 2:
					m.Body = &larderv1.SessionRequest_Credits{Credits: &larderv1.Credits{Want: []*larderv1.CreditRequest{{Length: 4096, Count: 1}}}}
				case 3:
					m.Body = &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: id, Chunks: 1}}
				}
				if r.stream.Send(m) != nil {
					return
				}
				sent.Add(int64(proto.Size(m)))
			}
		}()
	}
	// A daemon that keeps what it is sent would be sent ever more.
	const enough = 384 << 20
	for until := int64(-1); sent.Load() != until && sent.Load() < enough; {
		until = sent.Load()
		for i := range 50 {
			got, err := load(t.Context(), good, p)
			require.NoError(t, err, "load %d", i)
			require.Equal(t, 16, got.parts)
			require.Zero(t, got.wrong)
		}
	}
	after, err := d.Memory()
	require.NoError(t, err)
	// What a stream may have under way grows with the speed of the machine, up to
	// 16 MiB, in gRPC's estimate; twice that, for what the collector lets lie.
	require.Less(t, after.Private-before.Private, int64(floods*2*16<<20+64<<20), "the daemon keeps what it is sent: %d bytes", sent.Load())
	t.Logf("counted: %d MiB sent, %d kept", sent.Load()>>20, (after.Private-before.Private)>>20)
	cancel()
	// The floods end with their streams; a Send that waits for the daemon to
	// read ends so, too.
	d.Close()
	for range floods {
		<-done
	}
	require.NotZero(t, sent.Load())
}

// More loads than allowed at once are answered with busy, and nothing is lost.
func TestBusy(t *testing.T) {
	d := start(t, arenaBytes, "--session.max_in_flight=4")
	good := connect(t, d)
	p := workload.NewPrompt(1, 1)
	store(t, good, p)
	r := openRaw(t, d)
	r.hello()
	m := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: p.Root[:], Keys: p.Keys}}}).GetMatch()
	busy := 0
	for range 10 {
		reply := r.ask(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1}}})
		if reply.GetError().GetKind() == larderv1.ErrorKind_ERROR_KIND_BUSY {
			busy++
		}
	}
	require.Equal(t, 6, busy)
	requireLoaded(t, good, p)
}
