package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a listener.
type Options struct {
	// Mode of the socket file. Whoever may write to it may connect; who is
	// served is decided by credentials, later.
	Mode fs.FileMode
	// Refused is called with a connection that cannot be served since there is
	// no descriptor left for it. It may write a few bytes and must not block;
	// the connection is closed afterwards.
	Refused func(*net.UnixConn)
}

// Listener accepts connections on a Unix socket.
type Listener struct {
	*net.UnixListener
	lock    *os.File
	options Options

	mu     sync.Mutex
	spare  *os.File
	closed chan struct{}
}

// Reservation is the right to serve a path, before anything listens there. A
// daemon takes it before it takes memory, so that a second one started by
// mistake costs nothing.
type Reservation struct {
	path string
	lock *os.File
}

// Reserve takes the path. The directory is created, with mode 0755, if it is
// missing.
func Reserve(path string) (*Reservation, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of socket %s: %w", path, err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	if err := checkStale(path); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return &Reservation{path, lock}, nil
}

// Close gives the path up; after Listen the listener has it and this does
// nothing.
func (r *Reservation) Close() error {
	if r.lock == nil {
		return nil
	}
	lock := r.lock
	r.lock = nil
	return lock.Close()
}

// Listen listens at the path.
func (r *Reservation) Listen(o Options) (*Listener, error) {
	l, err := bind(r.path, o, r.lock)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", r.path, err)
	}
	r.lock = nil
	return l, nil
}

// Unix reserves a path and listens there.
func Unix(path string, o Options) (*Listener, error) {
	r, err := Reserve(path)
	if err != nil {
		return nil, err
	}
	l, err := r.Listen(o)
	if err != nil {
		_ = r.Close()
	}
	return l, err
}

func bind(path string, o Options, lock *os.File) (*Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	spare, err := openSpare()
	if err == nil {
		err = os.Chmod(path, o.Mode)
	}
	if err != nil {
		_ = u.Close()
		_ = spare.Close()
		return nil, err
	}
	return &Listener{UnixListener: u, lock: lock, options: o, spare: spare, closed: make(chan struct{})}, nil
}

// acquire takes the lock beside the socket. The lock ends with the process,
// however it ends; the file stays, because removing it would let two processes
// hold "the" lock.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of socket %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("socket %s: another daemon serves it", path)
		}
		return nil, fmt.Errorf("lock of socket %s: %w", path, err)
	}
	return f, nil
}

// checkStale allows nothing at the path but a socket that nobody listens on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is no socket lies there; remove it or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return errors.New("another program serves it")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether it is in use: %w", err)
	}
	return nil
}

func openSpare() (*os.File, error) { return os.Open(os.DevNull) }

// Accept waits for a connection. Its error is net.ErrClosed or one that no
// waiting repairs.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			return nil, err
		}
		// The kernel looks for a free descriptor before it looks for a
		// connection, so this does not say that there is one.
		if l.waiting() {
			if c := l.acceptWithSpare(); c != nil {
				return c, nil
			}
			continue
		}
		select {
		case <-l.closed:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// waiting says whether a connection is in the queue.
func (l *Listener) waiting() bool {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	ready := false
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		ready = err == nil && n > 0
	})
	return ready
}

// acceptWithSpare takes a connection with the spare descriptor. If there is
// another one for the next time, the connection is served; else it is refused.
func (l *Listener) acceptWithSpare() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare != nil {
		_ = l.spare.Close()
		l.spare = nil
	}
	// The connection that is waiting stays in the queue even if its owner
	// gives up; the deadline is for what we do not know.
	_ = l.SetDeadline(time.Now().Add(100 * time.Millisecond))
	c, err := l.AcceptUnix()
	_ = l.SetDeadline(time.Time{})
	if l.spare, _ = openSpare(); err != nil {
		return nil
	}
	if l.spare != nil {
		return c
	}
	if l.options.Refused != nil {
		l.options.Refused(c)
	}
	_ = c.Close()
	l.spare, _ = openSpare()
	return nil
}

// Close ends Accept and removes the socket file.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return nil
	default:
		close(l.closed)
	}
	err := l.UnixListener.Close()
	if l.spare != nil {
		_ = l.spare.Close()
	}
	return errors.Join(err, l.lock.Close())
}
