package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
)

// The hand-over socket gives the arena's descriptors to the owner of a session
// token (storage/arena/PROTOCOL.md): "LDH1" and the token go out; a status
// byte, the number of descriptors, a text and the descriptors come back. The
// last descriptor is the write end of the lifetime pipe.
const (
	handoverMagic  = "LDH1"
	handoverHeader = 1 + 2 + 4
	maxHandoverFDs = 4096
	maxHandoverMsg = 4096
	// The kernel passes at most 253 descriptors in one message.
	maxMessageFDs = 253
)

// handover fetches the descriptors of the session's arena. The caller owns
// them.
func handover(ctx context.Context, socket string, token []byte) (fds []int, err error) {
	var d net.Dialer
	dialled, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "hello.arena.handover_socket", "cannot connect").With(socket, nil)
	}
	conn, ok := dialled.(*net.UnixConn)
	if !ok {
		panic("client: a connection to a Unix socket is something else")
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
		if err != nil {
			closeAll(fds)
			fds = nil
			if ctx.Err() != nil {
				err = fault.Wrap(fault.Unavailable, context.Cause(ctx), "", "the hand-over socket did not answer in time").With(socket, nil)
			}
		}
	}()
	// A daemon that takes no request at the moment says so and closes, perhaps
	// before this is written: then the answer says more than the failed write.
	_, werr := conn.Write(append([]byte(handoverMagic), token...))
	fds, err = readHandover(conn, socket)
	if kind, _ := fault.KindOf(err); werr != nil && kind == fault.Unavailable {
		err = fault.Wrap(fault.Unavailable, werr, "", "hand-over socket").With(socket, nil)
	}
	return fds, err
}

func readHandover(conn *net.UnixConn, socket string) (fds []int, err error) {
	broken := func(format string, args ...any) error {
		return fault.New(fault.Unavailable, "", "hand-over socket: "+format, args...).With(socket, nil)
	}
	var reply []byte
	buf := make([]byte, maxHandoverMsg+handoverHeader)
	oob := make([]byte, unix.CmsgSpace(4*maxMessageFDs))
	want, text := -1, 0
	for want < 0 || len(reply) < handoverHeader+text || len(fds) < want {
		n, oobn, flags, _, rerr := conn.ReadMsgUnix(buf, oob)
		got, perr := parseRights(oob[:oobn])
		fds = append(fds, got...)
		switch {
		case rerr != nil && !errors.Is(rerr, io.EOF):
			return fds, fault.Wrap(fault.Unavailable, rerr, "", "hand-over socket").With(socket, nil)
		case flags&unix.MSG_CTRUNC != 0:
			return fds, broken("descriptors were cut off: this process has reached its limit of open files, raise RLIMIT_NOFILE")
		case perr != nil:
			return fds, broken("%v", perr)
		case n == 0:
			return fds, broken("closed after %d bytes and %d descriptors", len(reply), len(fds))
		}
		reply = append(reply, buf[:n]...)
		if want < 0 && len(reply) >= handoverHeader {
			want = int(binary.LittleEndian.Uint16(reply[1:]))
			size := binary.LittleEndian.Uint32(reply[3:])
			if want > maxHandoverFDs || size > maxHandoverMsg {
				return fds, broken("%d descriptors and %d bytes of text announced, at most %d and %d are taken", want, size, maxHandoverFDs, maxHandoverMsg)
			}
			text = int(size)
		}
	}
	if len(fds) != want || len(reply) != handoverHeader+text {
		return fds, broken("%d descriptors and %d bytes, announced were %d and %d", len(fds), len(reply), want, handoverHeader+text)
	}
	if code := reply[0]; code != 0 {
		kind := fault.Kind(code)
		if !kind.Valid() {
			kind = fault.Unavailable
		}
		return fds, fault.New(kind, "", "hand-over: %s", reply[handoverHeader:])
	}
	return fds, nil
}

func parseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		fds = append(fds, got...)
		if err != nil {
			return fds, fmt.Errorf("control message: %w", err)
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
