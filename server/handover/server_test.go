package handover

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/listen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is one session with two segments.
type fake struct {
	server   *Server
	token    [TokenSize]byte
	segments []*os.File
	refusal  error
	seen     auth.Identity
	lifetime chan *os.File
	lanes    chan net.Conn
	done     int
}

func (f *fake) ByToken(token [TokenSize]byte, id auth.Identity) (Session, error) {
	f.seen = id
	if token != f.token {
		return nil, fault.New(fault.Denied, "token", "no such session")
	}
	return f, nil
}

func (f *fake) Handover(lifetime *os.File) ([]int, func(), error) {
	if f.refusal != nil {
		_ = lifetime.Close()
		return nil, nil, f.refusal
	}
	f.lifetime <- lifetime
	var fds []int
	for _, s := range f.segments {
		fds = append(fds, int(s.Fd()))
	}
	return fds, func() { f.done++ }, nil
}

func (f *fake) Lane(conn net.Conn) (func(), error) {
	if f.refusal != nil {
		return nil, f.refusal
	}
	// As if the time of the exchange were over now, in the midst of it.
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return nil, err
	}
	return func() { f.lanes <- conn }, nil
}

// idle waits until no exchange is under way.
func (f *fake) idle(t *testing.T) {
	require.Eventually(t, func() bool { return len(f.server.slots) == 0 }, time.Minute, time.Millisecond)
}

func start(t *testing.T, o Options) (*fake, string) {
	f := &fake{token: [TokenSize]byte{1, 2, 3}, lifetime: make(chan *os.File, 1), lanes: make(chan net.Conn, 1)}
	for i := range 2 {
		s, err := os.CreateTemp(t.TempDir(), "segment")
		require.NoError(t, err)
		_, err = s.Write([]byte{'a' + byte(i)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		f.segments = append(f.segments, s)
	}
	o.Sessions = f
	path := filepath.Join(t.TempDir(), "h")
	s := New(o)
	f.server = s
	l, err := listen.Unix(path, listen.Options{Mode: 0o600, Refused: s.Refuse})
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		require.NoError(t, <-served)
		s.Close()
	})
	return f, path
}

type answer struct {
	status uint8
	text   string
	fds    []int
}

// ask sends raw bytes and reads the answer; nil where there is none.
func ask(t *testing.T, path string, request []byte) *answer {
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer c.Close()
	u := c.(*net.UnixConn)
	// A refusal does not wait long for the request; it is there all the same.
	if _, err = u.Write(request); err != nil {
		require.ErrorIs(t, err, unix.EPIPE)
	} else {
		require.NoError(t, u.CloseWrite())
	}
	return read(t, u)
}

func read(t *testing.T, u *net.UnixConn) *answer {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*MaxDescriptors))
	n, oobn, flags, _, err := u.ReadMsgUnix(buf, oob)
	if errors.Is(err, io.EOF) || n == 0 {
		return nil
	}
	require.NoError(t, err)
	require.Zero(t, flags&unix.MSG_CTRUNC)
	require.GreaterOrEqual(t, n, replyHead)
	a := &answer{status: buf[0]}
	require.EqualValues(t, n-replyHead, binary.LittleEndian.Uint32(buf[3:]))
	a.text = string(buf[replyHead:n])
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		require.NoError(t, err)
		require.Len(t, msgs, 1)
		a.fds, err = unix.ParseUnixRights(&msgs[0])
		require.NoError(t, err)
	}
	require.Len(t, a.fds, int(binary.LittleEndian.Uint16(buf[1:])))
	return a
}

func request(token [TokenSize]byte) []byte { return append([]byte(magic), token[:]...) }

func TestHandover(t *testing.T) {
	f, path := start(t, Options{})
	a := ask(t, path, request(f.token))
	require.NotNil(t, a)
	require.Zero(t, a.status, a.text)
	require.Len(t, a.fds, 3)
	for i, want := range []string{"a", "b"} {
		var b [1]byte
		_, err := unix.Pread(a.fds[i], b[:], 0)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:]))
		require.NoError(t, unix.Close(a.fds[i]))
	}

	// The pipe ends when the client's end does, and not before.
	lifetime := <-f.lifetime
	require.EqualValues(t, os.Getpid(), f.seen.PID)
	require.NoError(t, lifetime.SetReadDeadline(time.Now()))
	_, err := lifetime.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, lifetime.SetReadDeadline(time.Time{}))
	require.NoError(t, unix.Close(a.fds[2]))
	_, err = lifetime.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, lifetime.Close())
}

// A lane is a connection like any other once it was granted: neither the
// server's deadline nor its end touches it.
func TestLane(t *testing.T) {
	f, path := start(t, Options{MaxConnections: 1})
	for range 3 {
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write(append([]byte(laneMagic), f.token[:]...))
		require.NoError(t, err)
		a := read(t, c.(*net.UnixConn))
		require.NotNil(t, a)
		require.Zero(t, a.status, a.text)
		require.Empty(t, a.fds)
		lane := <-f.lanes
		defer lane.Close()
		f.idle(t)
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(lane, make([]byte, 1))
		require.NoError(t, err, "the hand-over's deadline still counts")
	}
	f.refusal = fault.New(fault.Invalid, "lane", "the session has a lane")
	a := ask(t, path, append([]byte(laneMagic), f.token[:]...))
	require.NotNil(t, a)
	require.Equal(t, uint8(fault.Invalid), a.status)
}

func TestRefusals(t *testing.T) {
	f, path := start(t, Options{})
	for name, c := range map[string]struct {
		request []byte
		kind    fault.Kind
		text    string
	}{
		"nothing":     {nil, fault.Invalid, "wrong length"},
		"short":       {request(f.token)[:20], fault.Invalid, "20"},
		"garbage":     {make([]byte, requestSize), fault.Invalid, "LDH1"},
		"other token": {request([TokenSize]byte{9}), fault.Denied, "no such session"},
	} {
		a := ask(t, path, c.request)
		require.NotNil(t, a, name)
		require.Equal(t, uint8(c.kind), a.status, name)
		require.Contains(t, a.text, c.text, name)
		require.Empty(t, a.fds, name)
	}
	f.refusal = fault.New(fault.Unavailable, "", "draining")
	a := ask(t, path, request(f.token))
	require.Equal(t, uint8(fault.Unavailable), a.status)
	require.Equal(t, "draining", a.text)
}

func TestSilentClientIsBounded(t *testing.T) {
	_, path := start(t, Options{Timeout: 10 * time.Millisecond, MaxConnections: 1})
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.ReadAll(c) // ends by the daemon's deadline, without ours
	require.NoError(t, err)
}

func TestTooManyAtOnce(t *testing.T) {
	f, path := start(t, Options{MaxConnections: 1})
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	// The first connection is in its exchange once a second one is refused.
	a := ask(t, path, request(f.token))
	require.Equal(t, uint8(fault.Busy), a.status, a.text)
	_, err = c.Write(request(f.token))
	require.NoError(t, err)
	got := read(t, c.(*net.UnixConn))
	require.Zero(t, got.status)
	for _, fd := range got.fds {
		require.NoError(t, unix.Close(fd))
	}
	require.NoError(t, (<-f.lifetime).Close())
	require.NoError(t, c.Close())
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(request([TokenSize]byte{1}))
	f.Add(request([TokenSize]byte{1})[:5])
	f.Add(append([]byte(laneMagic), make([]byte, TokenSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		lane, token, err := parseRequest(b)
		if err == nil {
			want := request(token)
			if lane {
				copy(want, laneMagic)
			}
			require.Equal(t, b, want)
			return
		}
		require.ErrorIs(t, err, fault.Invalid)
		require.Zero(t, token)
	})
}
