package auth

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// soPeerPidfd is SO_PEERPIDFD. It has this value on all architectures that we
// build for; golang.org/x/sys does not name it.
const soPeerPidfd = 77

// Process is a reference-counted pidfd: the process itself, whatever becomes
// of its pid. A nil *Process is a process that the kernel could not name; its
// methods may be called.
type Process struct {
	file *os.File
	gone chan struct{}

	mu   sync.Mutex
	refs int
	// watching is set once the goroutine that closes gone runs. It ends when
	// the process does, or with the last reference.
	watching bool
}

// newProcess owns fd.
func newProcess(fd int) (*Process, error) {
	// Non-blocking makes the runtime's poller watch it, so that a waiter costs
	// a goroutine and no thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return &Process{
		file: os.NewFile(uintptr(fd), "pidfd"),
		gone: make(chan struct{}),
		refs: 1,
	}, nil
}

// OpenProcess opens a pidfd for a pid of our own PID namespace. Only a parent,
// or whoever knows otherwise that the pid is not reused, should call it.
func OpenProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return newProcess(fd)
}

// Ref takes one more reference.
func (p *Process) Ref() *Process {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refs <= 0 {
		panic("auth: reference to a released process")
	}
	p.refs++
	return p
}

// Unref gives one reference back; the last one closes the descriptor.
func (p *Process) Unref() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refs--
	switch {
	case p.refs < 0:
		panic("auth: process released twice")
	case p.refs == 0:
		_ = p.file.Close() // ends the watcher
	}
}

// Gone is closed when the process has exited. For a nil Process it is nil and
// so never ready. It must not be called after the last Unref.
func (p *Process) Gone() <-chan struct{} {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.watching && p.refs > 0 {
		p.watching = true
		go p.watch()
	}
	return p.gone
}

func (p *Process) watch() {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	if raw.Read(exited) == nil {
		close(p.gone)
	}
}

// exited is called by the poller whenever the pidfd may have become readable,
// which it does when every thread of the process has ended.
func exited(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
