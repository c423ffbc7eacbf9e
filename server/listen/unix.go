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

// Unix listens at path. The directory is created, with mode 0755, if it is
// missing.
func Unix(path string, o Options) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of socket %s: %w", path, err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	l, err := bind(path, o, lock)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

func bind(path string, o Options, lock *os.File) (*Listener, error) {
	if err := removeStale(path); err != nil {
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

// removeStale removes a socket file that nobody listens on.
func removeStale(path string) error {
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
	return os.Remove(path)
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
		if !l.refuse() {
			// Somebody took the spare. Descriptors come back as connections
			// end; until then the queue of the socket bounds who waits.
			select {
			case <-l.closed:
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// refuse answers one connection with the spare descriptor.
func (l *Listener) refuse() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare == nil {
		l.spare, _ = openSpare()
		return l.spare != nil
	}
	_ = l.spare.Close()
	l.spare = nil
	// The one that Accept saw is still first in the queue, so this does not
	// wait, unless its owner gave up: the deadline bounds that.
	_ = l.SetDeadline(time.Now().Add(100 * time.Millisecond))
	c, err := l.AcceptUnix()
	_ = l.SetDeadline(time.Time{})
	if err == nil {
		if l.options.Refused != nil {
			l.options.Refused(c)
		}
		_ = c.Close()
	}
	l.spare, _ = openSpare()
	return err == nil
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
