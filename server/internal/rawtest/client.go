package rawtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/handover"
)

// patience bounds a session of a test, so that one that waits for nothing fails. Some
// sessions write a hundred megabytes to a disk, which may be slow.
const patience = 4 * time.Minute

// Client is one session.
type Client struct {
	T        testing.TB
	Conn     *grpc.ClientConn
	Stream   larderv1.Engine_SessionClient
	Handover string
	// Reply to the hello.
	Reply *larderv1.HelloReply
	// Content of the parts that Fill stores and Check expects. Nil: Content.
	Content func(key keys.Key, part int) []byte
	// Events that came while an answer was awaited.
	Events []*larderv1.SessionResponse

	cancel   context.CancelFunc
	nextID   uint64
	segments [][]byte
	write    []byte
	lifetime int
}

// Hello is a good hello; mods spoil it.
func Hello(mods ...func(*larderv1.Hello)) *larderv1.Hello {
	d := Namespace()
	fp := d.Fingerprint()
	h := &larderv1.Hello{
		Major: 1, InstanceId: make([]byte, 16), Role: larderv1.Role_ROLE_CLIENT,
		Namespace: d.Encode(), Fingerprint: fp[:], Engine: "test", Client: "raw",
	}
	for _, m := range mods {
		m(h)
	}
	return h
}

// Open opens a stream and says nothing.
func Open(t testing.TB, socket, handoverSocket string) *Client {
	cc, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	stream, err := larderv1.NewEngineClient(cc).Session(ctx)
	require.NoError(t, err)
	c := &Client{T: t, Conn: cc, Stream: stream, Handover: handoverSocket, cancel: cancel, lifetime: -1}
	t.Cleanup(c.Abandon)
	return c
}

// Greet says hello; the answer may be an error.
func (c *Client) Greet(mods ...func(*larderv1.Hello)) *larderv1.SessionResponse {
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Hello{Hello: Hello(mods...)}})
	c.Reply = r.GetHello()
	return r
}

// TryGreet is Greet for a stream that the daemon may end.
func (c *Client) TryGreet(mods ...func(*larderv1.Hello)) (*larderv1.SessionResponse, error) {
	c.nextID++
	m := &larderv1.SessionRequest{Id: c.nextID, Body: &larderv1.SessionRequest_Hello{Hello: Hello(mods...)}}
	// An error of Send says only that the stream is over; Recv says why.
	_ = c.Stream.Send(m)
	r, err := c.Stream.Recv()
	c.Reply = r.GetHello()
	return r, err
}

// Connect opens a session and maps the arena.
func Connect(t testing.TB, socket, handoverSocket string, mods ...func(*larderv1.Hello)) *Client {
	c := Open(t, socket, handoverSocket)
	r := c.Greet(mods...)
	require.NotNil(t, c.Reply, "%v", r)
	if c.Reply.GetArena() != nil {
		c.Map()
	}
	return c
}

// Abandon breaks the connection and unmaps the arena.
func (c *Client) Abandon() {
	c.cancel()
	_ = c.Conn.Close()
	if l, ok := c.Stream.(*laneStream); ok {
		_ = l.conn.Close()
	}
	for _, m := range append(c.segments, c.write) {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	c.segments, c.write = nil, nil
	c.EndLifetime()
}

// EndLifetime closes the lifetime pipe, as the end of the process would.
func (c *Client) EndLifetime() {
	if c.lifetime >= 0 {
		_ = unix.Close(c.lifetime)
		c.lifetime = -1
	}
}

// End closes the stream in good order and returns the daemon's last word.
func (c *Client) End() error {
	require.NoError(c.T, c.Stream.CloseSend())
	for {
		if _, err := c.Stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Send sends a request, with a new id if it has none.
func (c *Client) Send(m *larderv1.SessionRequest) uint64 {
	if m.Id == 0 {
		c.nextID++
		m.Id = c.nextID
	}
	require.NoError(c.T, c.Stream.Send(m))
	return m.Id
}

// Recv takes the next message that is no event.
func (c *Client) Recv() *larderv1.SessionResponse {
	for {
		m, err := c.Stream.Recv()
		require.NoError(c.T, err)
		if m.Id != 0 {
			return m
		}
		c.Events = append(c.Events, m)
	}
}

// Event takes the next event.
func (c *Client) Event() *larderv1.SessionResponse {
	if len(c.Events) == 0 {
		m, err := c.Stream.Recv()
		require.NoError(c.T, err)
		require.Zero(c.T, m.Id, "%v", m)
		return m
	}
	m := c.Events[0]
	c.Events = c.Events[1:]
	return m
}

// Call sends and takes the next answer, which must be to this.
func (c *Client) Call(m *larderv1.SessionRequest) *larderv1.SessionResponse {
	id := c.Send(m)
	r := c.Recv()
	require.Equal(c.T, id, r.Id, "%v", r)
	return r
}

// Lane moves the session's messages to a lane: from now on Stream is one.
func (c *Client) Lane() {
	conn, status, text := c.AskLane(c.Reply.GetSessionToken())
	require.Zero(c.T, status, text)
	c.Stream = &laneStream{Engine_SessionClient: c.Stream, conn: conn}
}

// AskLane asks for a lane with a token; the caller owns the connection.
func (c *Client) AskLane(token []byte) (conn *net.UnixConn, status uint8, text string) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Handover, Net: "unix"})
	require.NoError(c.T, err)
	c.T.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write(append([]byte("LDL1"), token...))
	require.NoError(c.T, err)
	head := make([]byte, 7)
	_, err = io.ReadFull(conn, head)
	require.NoError(c.T, err)
	rest := make([]byte, binary.LittleEndian.Uint32(head[3:]))
	_, err = io.ReadFull(conn, rest)
	require.NoError(c.T, err)
	return conn, head[0], string(rest)
}

// Ask runs one hand-over with a token.
func (c *Client) Ask(token []byte) (fds []int, status uint8, text string) {
	conn, err := net.Dial("unix", c.Handover)
	require.NoError(c.T, err)
	defer conn.Close()
	if _, err = conn.Write(append([]byte("LDH1"), token...)); err != nil {
		require.ErrorIs(c.T, err, unix.EPIPE, "refused before it was asked")
	}
	buf, oob := make([]byte, 2048), make([]byte, unix.CmsgSpace(4*handover.MaxDescriptors))
	n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(buf, oob)
	require.NoError(c.T, err)
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		require.NoError(c.T, err)
		fds, err = unix.ParseUnixRights(&msgs[0])
		require.NoError(c.T, err)
	}
	return fds, buf[0], string(buf[7:n])
}

// Map takes the descriptors and maps them.
func (c *Client) Map() {
	fds, status, text := c.Ask(c.Reply.GetSessionToken())
	require.Zero(c.T, status, text)
	info := c.Reply.GetArena()
	prot := unix.PROT_READ
	if info.GetMode() == larderv1.ArenaMode_ARENA_MODE_SHARED {
		prot |= unix.PROT_WRITE
	}
	sizes := info.GetSegmentBytes()
	for i, size := range sizes {
		m, err := unix.Mmap(fds[i], 0, int(size), prot, unix.MAP_SHARED)
		require.NoError(c.T, err)
		c.segments = append(c.segments, m)
	}
	if n := info.GetWriteSegmentBytes(); n > 0 {
		m, err := unix.Mmap(fds[len(sizes)], 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(c.T, err)
		c.write = m
	}
	c.lifetime = fds[len(fds)-1]
	for _, fd := range fds[:len(fds)-1] {
		require.NoError(c.T, unix.Close(fd))
	}
}

// Bytes are the first n bytes of a slot.
func (c *Client) Bytes(s *larderv1.Slot, n uint64) []byte {
	m := c.write
	if s.GetSegment() != 65535 {
		m = c.segments[s.GetSegment()]
	}
	return m[s.GetOffset() : s.GetOffset()+n]
}

// Prompt makes a prompt of the session's tenant.
func (c *Client) Prompt(seed uint32, n int) Prompt {
	return NewPrompt(c.T, c.Reply.GetTenantKey(), seed, n)
}

// CreditsRequest asks for n slots.
func CreditsRequest(length uint64, n uint32) *larderv1.SessionRequest {
	return &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Credits{
		Credits: &larderv1.Credits{Want: []*larderv1.CreditRequest{{Length: length, Count: n}}},
	}}
}

// Credits takes n slots for parts of the test's namespace.
func (c *Client) Credits(n int) []*larderv1.Slot {
	m := c.Call(CreditsRequest(PartBytes, uint32(n)))
	require.Nil(c.T, m.GetError())
	require.Len(c.T, m.GetCredits().GetGranted(), n)
	var slots []*larderv1.Slot
	for _, g := range m.GetCredits().GetGranted() {
		slots = append(slots, g.GetSlot())
	}
	return slots
}

// Fill takes credits, writes parts of chunks [from, to), and returns the
// commit that hands them over.
func (c *Client) Fill(p Prompt, from, to int, parts ...int) *larderv1.Commit {
	m := &larderv1.Commit{}
	slots := c.Credits((to - from) * len(parts))
	for i := from; i < to; i++ {
		parent := p.Parent(i)
		ch := &larderv1.CommitChunk{Key: p.Keys[i][:], Parent: parent[:], Ordinal: uint32(i), Tokens: ChunkTokens}
		for _, part := range parts {
			copy(c.Bytes(slots[0], PartBytes), c.content(p.Keys[i], part))
			ch.Parts = append(ch.Parts, &larderv1.CommitPart{Part: uint32(part), Slot: slots[0], Length: PartBytes})
			slots = slots[1:]
		}
		m.Chunks = append(m.Chunks, ch)
	}
	return m
}

// Commit sends a commit and returns the answer.
func (c *Client) Commit(m *larderv1.Commit) *larderv1.SessionResponse {
	return c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Commit{Commit: m}})
}

// Store stores whole chunks [from, to) and expects them to be published.
func (c *Client) Store(p Prompt, from, to int) {
	r := c.Commit(c.Fill(p, from, to, 0, 1)).GetCommit()
	require.Len(c.T, r.GetOutcomes(), (to-from)*Parts)
	for _, o := range r.GetOutcomes() {
		require.Equal(c.T, larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, o, "%v", r)
	}
}

func (c *Client) content(key keys.Key, part int) []byte {
	if c.Content == nil {
		return Content(key, part)
	}
	return c.Content(key, part)
}

// Match matches a prompt, with a hold; exact chunks only.
func (c *Client) Match(p Prompt) *larderv1.MatchReply { return c.MatchWorst(p, 0) }

// MatchWorst is Match for chunks of a quality no worse than that.
func (c *Client) MatchWorst(p Prompt, worst uint32) *larderv1.MatchReply {
	m := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{
		Root: p.Root[:], Keys: keys.List(p.Keys), WorstQuality: worst,
	}}})
	require.Nil(c.T, m.GetError())
	return m.GetMatch()
}

// Loaded is what came of a load.
type Loaded struct {
	ID     uint64
	Ready  []*larderv1.LeasedPart
	Failed []*larderv1.FailedPart
	// Error where the load was refused as a whole.
	Error *larderv1.Error
}

// Load sends a load and waits until it is done.
func (c *Client) Load(m *larderv1.Load) Loaded {
	l := Loaded{ID: c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: m}})}
	for {
		r := c.Recv()
		require.Equal(c.T, l.ID, r.Id, "%v", r)
		if l.Error = r.GetError(); l.Error != nil {
			return l
		}
		l.Ready = append(l.Ready, r.GetLoad().GetReady()...)
		l.Failed = append(l.Failed, r.GetLoad().GetFailed()...)
		if r.GetLoad().GetDone() {
			return l
		}
	}
}

// Release releases a load.
func (c *Client) Release(load uint64) (confirmed bool) {
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Release{Release: &larderv1.Release{LoadId: load}}})
	require.Nil(c.T, r.GetError())
	return r.GetRelease().GetConfirmed()
}

// EndHold ends a hold.
func (c *Client) EndHold(id uint64) {
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_EndHolds{EndHolds: &larderv1.EndHolds{HoldIds: []uint64{id}}}})
	require.NotNil(c.T, r.GetEndHolds(), "%v", r)
}

// Check matches a prompt, expects n chunks, loads them and compares every
// byte.
func (c *Client) Check(p Prompt, n int) {
	m := c.Match(p)
	require.EqualValues(c.T, n, m.GetChunks())
	if n == 0 {
		return
	}
	l := c.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: m.GetChunks()})
	require.Empty(c.T, l.Failed)
	require.Len(c.T, l.Ready, n*Parts)
	for _, part := range l.Ready {
		require.Equal(c.T, c.content(p.Keys[part.GetChunk()], int(part.GetPart())), c.Bytes(part.GetSlot(), part.GetLength()))
	}
	require.True(c.T, c.Release(l.ID))
	c.EndHold(m.GetHoldId())
}
