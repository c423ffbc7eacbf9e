package doctor

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what the checks ask the machine.
type Host struct {
	// Release is the kernel's, as uname gives it.
	Release func() string
	// Features tries each system call that Larder uses, by name; nil = works.
	Features func() map[string]error
	// Limit returns the soft limit of a resource (unix.RLIMIT_*).
	Limit func(resource int) (uint64, error)
	// ReadFile reads a small file of /proc or /sys.
	ReadFile func(path string) (string, error)
	Stat     func(path string) (fs.FileInfo, error)
	// Run starts a program and returns its output, both streams.
	Run func(ctx context.Context, name string, arg ...string) (string, error)
}

// Real is the machine that this process runs on.
func Real() Host {
	return Host{
		Release: func() string {
			var u unix.Utsname
			if unix.Uname(&u) != nil {
				return ""
			}
			return unix.ByteSliceToString(u.Release[:])
		},
		Features: features,
		Limit: func(resource int) (uint64, error) {
			var l unix.Rlimit
			err := unix.Getrlimit(resource, &l)
			return l.Cur, err
		},
		ReadFile: func(path string) (string, error) {
			b, err := os.ReadFile(path)
			return strings.TrimSpace(string(b)), err
		},
		Stat: os.Stat,
		Run: func(ctx context.Context, name string, arg ...string) (string, error) {
			out, err := exec.CommandContext(ctx, name, arg...).CombinedOutput()
			return strings.TrimSpace(string(out)), err
		},
	}
}

// features tries each call on something small of its own.
func features() map[string]error {
	out := make(map[string]error)
	out["memfd_create"] = withMemfd(func(int) error { return nil })
	out["F_SEAL_FUTURE_WRITE"] = withMemfd(func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
		return err
	})
	out["MADV_POPULATE_WRITE"] = withMemfd(func(fd int) error {
		b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(b) }()
		return unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	})
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if out["pidfd_open"] = err; err == nil {
		_ = unix.Close(fd)
	}
	out["SO_PEERPIDFD"] = peerPidfd()
	return out
}

func withMemfd(f func(fd int) error) error {
	fd, err := unix.MemfdCreate("larder-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(os.Getpagesize())); err != nil {
		return err
	}
	return f(fd)
}

func peerPidfd() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pair[0]); _ = unix.Close(pair[1]) }()
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
