package listen

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// child is set in the processes that tests start from this binary.
const child = "LISTEN_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(child); path != "" {
		os.Exit(serveAsChild(path))
	}
	goleak.VerifyTestMain(m)
}

// serveAsChild listens until standard input ends, then dies without cleaning
// up.
func serveAsChild(path string) int {
	if _, err := Unix(path, Options{Mode: 0o600}); err != nil {
		return 1
	}
	_, _ = os.Stdout.WriteString("x")
	_, _ = io.ReadAll(os.Stdin)
	return 0
}

func TestAcceptAndClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "s")
	l, err := Unix(path, Options{Mode: 0o640})
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())

	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, errors.Join(c.Close(), s.Close()))

	_, err = Unix(path, Options{})
	require.ErrorContains(t, err, "another daemon")

	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoFileExists(t, path)
	l, err = Unix(path, Options{})
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestDeadAndLivingOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 1))
	require.NoError(t, err)

	_, err = Unix(path, Options{Mode: 0o600})
	require.ErrorContains(t, err, "another daemon serves it")

	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	_ = in.Close()
	require.FileExists(t, path, "killed: the file stays")
	l, err := Unix(path, Options{Mode: 0o600})
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestForeignThingsAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err := Unix(path, Options{})
	require.ErrorContains(t, err, "no socket")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(b))

	require.NoError(t, os.Remove(path))
	other, err := net.Listen("unix", path)
	require.NoError(t, err)
	_, err = Unix(path, Options{})
	require.ErrorContains(t, err, "another program")
	require.NoError(t, other.Close())

	l, err := Unix(filepath.Join(path, "below", "a-file"), Options{})
	require.NoError(t, err, "other.Close removed the file")
	require.NoError(t, l.Close())
}

// Not parallel: it takes all descriptors of the process.
func TestDescriptorLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Unix(path, Options{Mode: 0o600, Refused: func(c *net.UnixConn) { _, _ = c.Write([]byte("no")) }})
	require.NoError(t, err)
	accepted := make(chan net.Conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()

	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	small := old
	small.Cur = 100
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &small))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	// A socket of our own, not yet connected, then nothing is left.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			break
		}
		taken = append(taken, f)
	}
	require.NoError(t, unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
	var buf [8]byte
	n, err := unix.Read(fd, buf[:])
	require.NoError(t, err)
	require.Equal(t, "no", string(buf[:n]))
	require.NoError(t, unix.Close(fd))

	for _, f := range taken {
		require.NoError(t, f.Close())
	}
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	s := <-accepted
	require.NoError(t, errors.Join(c.Close(), s.Close(), l.Close()))
	<-done
}
