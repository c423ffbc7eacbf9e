package process

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
)

// guardedBytes leaves room for the write segments.
const guardedBytes = 1 << 30

func TestGuarded(t *testing.T) {
	d := start(t, guardedBytes, append([]string{"--host.mode=guarded"}, quick...)...)
	a := connect(t, d)
	require.Equal(t, larderv1.ArenaMode_ARENA_MODE_GUARDED, a.Hello().GetArena().GetMode())
	p := workload.NewPrompt(1, 20)
	store(t, a, p)
	requireLoaded(t, a, p)
	requireLoaded(t, connect(t, d), p)
}

// In mode guarded a client cannot get a writable mapping of the arena, whatever
// it tries with the descriptors that it was given.
func TestGuardedArenaIsReadOnly(t *testing.T) {
	d := start(t, guardedBytes, "--host.mode=guarded")
	r := openRaw(t, d)
	hello := r.hello()
	fds := takeDescriptors(t, hello.GetArena().GetHandoverSocket(), hello.GetSessionToken())
	require.Len(t, fds, len(hello.GetArena().GetSegmentBytes())+2)
	size := int(hello.GetArena().GetSegmentBytes()[0])
	_, err := unix.Mmap(fds[0], 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.ErrorIs(t, err, unix.EPERM)
	_, err = unix.Pwrite(fds[0], []byte{1}, 0)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorIs(t, unix.Ftruncate(fds[0], 0), unix.EPERM)
	b, err := unix.Mmap(fds[0], 0, size, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	require.ErrorIs(t, unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE), unix.EACCES)
	require.NoError(t, unix.Munmap(b))
}

// A client that is stopped between grant and copy writes into its own segment
// only.
func TestGuardedStoppedBetweenGrantAndCopy(t *testing.T) {
	d := start(t, guardedBytes, append([]string{"--host.mode=guarded", "--host.verify=off"}, quick...)...)
	other := connect(t, d)
	p := newPuppet(t, d)
	p.enterWrite(d, 4)
	p.stop()
	await(t, d, "the stopped client's session is closed", func(s *larderv1.StatusResponse) bool {
		return s.GetCounters().GetQuarantinedSessions() > 0
	})
	fresh := fill(t, other, 1)
	p.signal(unix.SIGCONT)
	await(t, d, "it is back with a new session", func(s *larderv1.StatusResponse) bool { return len(s.GetSessions()) == 2 })
	require.Contains(t, p.leave().Error, "miss")
	for _, f := range fresh {
		requireLoadedInTime(t, other, f)
	}
}

// takeDescriptors is a hand-over without a client around it.
func takeDescriptors(t *testing.T, socket string, token []byte) []int {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.Write(append([]byte("LDH1"), token...))
	require.NoError(t, err)
	buf, oob := make([]byte, 2048), make([]byte, 2048)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 7)
	require.Zero(t, buf[0], "refused: %s", buf[7:n])
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	require.NoError(t, err)
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		require.NoError(t, err)
		fds = append(fds, got...)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	return fds
}
