package client

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
)

// pair is two ends of a Unix stream.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

func reply(status byte, count uint16, text string) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{status}, count)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// The reply may come in pieces, and more descriptors than one message carries
// may follow in others.
func TestHandoverInPieces(t *testing.T) {
	a, b := pair(t)
	defer func() { require.NoError(t, b.Close()) }()
	fd := int(os.Stdin.Fd())
	m := reply(0, 3, "abc")
	go func() {
		_, _, _ = a.WriteMsgUnix(m[:2], unix.UnixRights(fd, fd), nil)
		_, _ = a.Write(m[2:8])
		_, _, _ = a.WriteMsgUnix(m[8:], unix.UnixRights(fd), nil)
		_ = a.Close()
	}()
	fds, err := readHandover(b, "socket")
	require.NoError(t, err)
	require.Len(t, fds, 3)
	closeAll(fds)
}

func TestHandoverErrors(t *testing.T) {
	for name, c := range map[string]struct {
		send []byte
		fds  int
		kind fault.Kind
		says string
	}{
		"closed at once":      {nil, 0, fault.Unavailable, "closed after 0 bytes"},
		"closed early":        {reply(0, 1, "text")[:9], 0, fault.Unavailable, "closed after 9 bytes"},
		"refused":             {reply(byte(fault.Denied), 0, "no such session"), 0, fault.Denied, "no such session"},
		"unknown status":      {reply(99, 0, "new words"), 0, fault.Unavailable, "new words"},
		"too few":             {reply(0, 3, ""), 1, fault.Unavailable, "1 descriptors"},
		"too many":            {reply(0, 1, ""), 2, fault.Unavailable, "2 descriptors"},
		"more than announced": {append(reply(0, 0, ""), 1, 2, 3), 0, fault.Unavailable, "10 bytes"},
		"absurd":              {reply(0, 60000, ""), 0, fault.Unavailable, "60000 descriptors"},
		"absurd text":         {binary.LittleEndian.AppendUint32([]byte{1, 0, 0}, 1<<31), 0, fault.Unavailable, "bytes of text announced"},
	} {
		a, b := pair(t)
		if c.fds > 0 {
			fds := make([]int, c.fds)
			for i := range fds {
				fds[i] = int(os.Stdin.Fd())
			}
			_, _, err := a.WriteMsgUnix(c.send, unix.UnixRights(fds...), nil)
			require.NoError(t, err)
		} else {
			_, err := a.Write(c.send)
			require.NoError(t, err)
		}
		require.NoError(t, a.Close())
		fds, err := readHandover(b, "socket")
		kind, _ := fault.KindOf(err)
		require.Equal(t, c.kind, kind, name)
		require.ErrorContains(t, err, c.says, name)
		closeAll(fds)
		require.NoError(t, b.Close())
	}
}

// FuzzHandover: whatever a daemon sends, the client ends with descriptors as
// announced or with an error.
func FuzzHandover(f *testing.F) {
	f.Add(reply(0, 0, ""), false)
	f.Add(reply(5, 0, "gone"), false)
	f.Add(reply(0, 1, "x"), true)
	f.Add([]byte{0, 255, 255, 255}, true)
	f.Fuzz(func(t *testing.T, b []byte, withFD bool) {
		if len(b) > 2*maxHandoverMsg {
			return
		}
		near, far := pair(t)
		var rights []byte
		if withFD && len(b) > 0 {
			rights = unix.UnixRights(int(os.Stdin.Fd()))
		}
		_, _, err := near.WriteMsgUnix(b, rights, nil)
		require.NoError(t, err)
		require.NoError(t, near.Close())
		fds, err := readHandover(far, "socket")
		if err == nil {
			require.Zero(t, b[0])
			require.Len(t, fds, int(binary.LittleEndian.Uint16(b[1:])))
		}
		closeAll(fds)
		require.NoError(t, far.Close())
	})
}

// A daemon that refuses before it has read the request is heard, whether the
// request could still be written or not.
func TestHandoverRefusedBeforeItIsAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h")
	accept(t, path, func(c *net.UnixConn) {
		_, _ = c.Write(reply(byte(fault.Busy), 0, "too many"))
		_ = c.CloseRead() // what is written now fails
	})
	for range 50 {
		_, err := handover(t.Context(), path, make([]byte, 32))
		require.ErrorIs(t, err, fault.Busy)
		require.ErrorContains(t, err, "too many")
	}
}
