package session_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// bare opens a session and a lane of which the test writes the bytes.
func bare(w *world) (*rawtest.Client, *net.UnixConn) {
	c := rawtest.Connect(w.t, w.socket, w.handover)
	conn, status, text := c.AskLane(c.Reply.GetSessionToken())
	require.Zero(w.t, status, text)
	return c, conn
}

func requireAnswer(t *testing.T, conn *net.UnixConn, id uint64) {
	t.Helper()
	r, err := rawtest.ReadFrame(conn)
	require.NoError(t, err)
	require.Equal(t, id, r.GetId())
	require.NotNil(t, r.GetEndHolds(), "%v", r)
}

func endHolds(id uint64, holds int) *larderv1.SessionRequest {
	m := &larderv1.EndHolds{}
	for i := range holds {
		m.HoldIds = append(m.HoldIds, 1<<62+uint64(i))
	}
	return &larderv1.SessionRequest{Id: id, Body: &larderv1.SessionRequest_EndHolds{EndHolds: m}}
}

func TestLaneFrames(t *testing.T) {
	w := newWorld(t, defaults())
	_, conn := bare(w)
	// Byte by byte.
	for _, b := range rawtest.Frame(endHolds(1, 1)) {
		_, err := conn.Write([]byte{b})
		require.NoError(t, err)
	}
	requireAnswer(t, conn, 1)
	// Several at once, among them one that is larger than any buffer.
	large := rawtest.Frame(endHolds(3, 20000))
	require.Greater(t, len(large), 128<<10)
	_, err := conn.Write(bytes.Join([][]byte{rawtest.Frame(endHolds(2, 1)), large, rawtest.Frame(endHolds(4, 0))}, nil))
	require.NoError(t, err)
	for id := range uint64(3) {
		requireAnswer(t, conn, 2+id)
	}
}

// What breaks the protocol ends the session, the stream says why, and nobody
// else notices.
func TestLanesThatBreakTheProtocol(t *testing.T) {
	w := newWorld(t, defaults())
	good := w.connect()
	for name, c := range map[string]struct {
		bytes []byte
		kind  larderv1.ErrorKind
		text  string
	}{
		"too large":            {binary.LittleEndian.AppendUint32(nil, 2<<20+1), larderv1.ErrorKind_ERROR_KIND_INVALID, "2097153"},
		"as large as can be":   {[]byte{0xff, 0xff, 0xff, 0xff}, larderv1.ErrorKind_ERROR_KIND_INVALID, "too large"},
		"garbage":              {[]byte{3, 0, 0, 0, 0xff, 0xff, 0xff}, larderv1.ErrorKind_ERROR_KIND_INVALID, "no SessionRequest"},
		"empty":                {[]byte{0, 0, 0, 0}, larderv1.ErrorKind_ERROR_KIND_INVALID, "id"},
		"second hello":         {rawtest.Frame(&larderv1.SessionRequest{Id: 9, Body: &larderv1.SessionRequest_Hello{Hello: rawtest.Hello()}}), larderv1.ErrorKind_ERROR_KIND_INVALID, "second"},
		"half a head":          {[]byte{1, 0}, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "inside a message"},
		"half a message":       {rawtest.Frame(endHolds(1, 4))[:9], larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "inside a message"},
		"half a large message": {rawtest.Frame(endHolds(1, 20000))[:100_000], larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "inside a message"},
	} {
		t.Run(name, func(t *testing.T) {
			r, conn := bare(w)
			r.T = t
			_, err := conn.Write(c.bytes)
			require.NoError(t, err)
			require.NoError(t, conn.CloseWrite())
			_, err = r.Stream.Recv()
			requireEnd(t, err, c.kind, c.text)
			_, err = rawtest.ReadFrame(conn)
			require.Error(t, err, "the lane ends with its session")
		})
	}
	require.Zero(t, good.Match(good.Prompt(1, 2)).GetChunks())
	w.settled(1, 0)
}

func TestLaneRules(t *testing.T) {
	w := newWorld(t, defaults())
	c, conn := bare(w)
	token := c.Reply.GetSessionToken()
	_, status, text := c.AskLane(token)
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_INVALID, status, text)
	_, status, _ = c.AskLane(make([]byte, 32))
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_DENIED, status)
	_, err := conn.Write(rawtest.Frame(endHolds(1, 1)))
	require.NoError(t, err)
	requireAnswer(t, conn, 1)
	// The stream carries no more requests.
	require.NoError(t, c.Stream.Send(endHolds(2, 1)))
	_, err = c.Stream.Recv()
	requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_INVALID, "has a lane")
	w.settled(0, 0)
	_, status, _ = c.AskLane(token)
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_DENIED, status, "the session has ended")
}

// The end of a lane between two messages is a clean one; a stream that ends
// takes its lane with it. Neither leaves a descriptor behind.
func TestEndsOfLanes(t *testing.T) {
	w := newWorld(t, defaults())
	w.connect()
	before := descriptors(t)
	for range 8 {
		c, conn := bare(w)
		require.NoError(t, conn.CloseWrite())
		require.NoError(t, c.End())
		c.Abandon()
		require.NoError(t, conn.Close())

		c, conn = bare(w)
		require.NoError(t, c.End())
		_, err := rawtest.ReadFrame(conn)
		require.Error(t, err)
		c.Abandon()
		require.NoError(t, conn.Close())

		c, conn = bare(w)
		c.Abandon()
		_, err = rawtest.ReadFrame(conn)
		require.Error(t, err)
		require.NoError(t, conn.Close())

		c, conn = bare(w)
		require.NoError(t, conn.Close())
		require.NoError(t, c.End())
		c.Abandon()
	}
	w.settled(1, 0)
	require.Eventually(t, func() bool { return descriptors(t) <= before }, 20*time.Second, time.Millisecond)
}

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

func TestLaneOfAScheduler(t *testing.T) {
	w := newWorld(t, over(true))
	c := w.connect(func(h *larderv1.Hello) { h.Role = larderv1.Role_ROLE_SCHEDULER })
	require.Nil(t, c.Reply.GetArena())
	p := c.Prompt(1, 2)
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: p.Root[:], Keys: keys.List(p.Keys)}}})
	require.NotNil(t, r.GetMatch())
	require.Equal(t, 1, w.sessions.Lanes())
	require.NoError(t, c.End())
	w.settled(0, 0)
	require.Zero(t, w.sessions.Lanes())
}

// Where lanes are off none is offered and none is given.
func TestLanesOff(t *testing.T) {
	s := defaults()
	s.noLanes = true
	w := newWorld(t, s)
	c := w.connect()
	require.Empty(t, c.Reply.GetLaneSocket())
	_, status, text := c.AskLane(c.Reply.GetSessionToken())
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_INVALID, status, text)
	require.Zero(t, c.Match(c.Prompt(1, 2)).GetChunks())
}
