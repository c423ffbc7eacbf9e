package segment

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// SystemFS is the file system of this host.
type SystemFS struct{}

// MakeDir implements FS.
func (SystemFS) MakeDir(name string) error { return os.MkdirAll(name, 0o700) }

// List implements FS.
func (SystemFS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Open implements FS.
func (SystemFS) Open(name string, buffered bool) (File, error) {
	return openFile(name, unix.O_RDWR, buffered)
}

// OpenReadOnly implements FS.
func (SystemFS) OpenReadOnly(name string) (File, error) {
	fd, err := openAt(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &systemFile{fd: fd, name: name}, nil
}

// Create implements FS.
func (SystemFS) Create(name string, buffered bool) (File, error) {
	f, err := openFile(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, buffered)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		// A file system without direct I/O refuses after it made the file.
		_ = unix.Unlink(name)
	}
	return f, err
}

// Remove implements FS.
func (SystemFS) Remove(name string) error { return os.Remove(name) }

// Rename implements FS.
func (SystemFS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir implements FS.
func (SystemFS) SyncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type lockFile struct{ fd int }

func (l lockFile) Close() error { return unix.Close(l.fd) }

// Lock implements FS by flock.
func (SystemFS) Lock(name string) (io.Closer, error) {
	fd, err := openAt(name, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		return nil, wrapPath("flock", name, err)
	}
	return lockFile{fd}, nil
}

// Locked implements FS.
func (SystemFS) Locked(name string) (bool, error) {
	fd, err := openAt(name, unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, wrapPath("flock", name, err)
}

// Free implements FS.
func (SystemFS) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, wrapPath("statfs", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func openAt(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, wrapPath("open", name, err)
		}
	}
}

func openFile(name string, flags int, buffered bool) (File, error) {
	fd, err := openAt(name, flags|unix.O_DIRECT)
	if err == nil {
		return &systemFile{fd: fd, name: name, direct: true}, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) || !buffered {
		return nil, err
	}
	// O_EXCL has made the file already where only O_DIRECT was refused.
	if fd, err = openAt(name, flags&^unix.O_EXCL); err != nil {
		return nil, err
	}
	return &systemFile{fd: fd, name: name}, nil
}

func wrapPath(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

type systemFile struct {
	fd     int
	name   string
	direct bool
}

// maxVec is the system's bound on buffers in a call.
const maxVec = 1024

// ReadVec implements File.
func (f *systemFile) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	return f.transfer("read", unix.Preadv, bufs, offset)
}

// WriteVec implements File.
func (f *systemFile) WriteVec(bufs [][]byte, offset int64) error {
	n, err := f.transfer("write", unix.Pwritev, bufs, offset)
	if err == nil && n != vecBytes(bufs) {
		err = wrapPath("write", f.name, io.ErrShortWrite)
	}
	return err
}

// transfer calls until everything moved, an error, or nothing moves any more.
func (f *systemFile) transfer(op string, call func(int, [][]byte, int64) (int, error), bufs [][]byte, offset int64) (int64, error) {
	var done int64
	for rest := bufs; len(rest) > 0; {
		n, err := call(f.fd, rest[:min(len(rest), maxVec)], offset+done)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, wrapPath(op, f.name, err)
		}
		if n == 0 {
			break
		}
		done += int64(n)
		rest = advance(rest, n)
	}
	return done, nil
}

// advance returns what follows the first n bytes; bufs stays as it is.
func advance(bufs [][]byte, n int) [][]byte {
	for n > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs = append([][]byte{bufs[0][n:]}, bufs[1:]...)
	}
	return bufs
}

func vecBytes(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// Preallocate implements File.
func (f *systemFile) Preallocate(size int64) error {
	return wrapPath("fallocate", f.name, retry(func() error { return unix.Fallocate(f.fd, 0, 0, size) }))
}

// Punch implements File.
func (f *systemFile) Punch(offset, length int64) error {
	return wrapPath("punch", f.name, retry(func() error {
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	}))
}

// Truncate implements File.
func (f *systemFile) Truncate(size int64) error {
	return wrapPath("truncate", f.name, retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

// SyncData implements File.
func (f *systemFile) SyncData() error {
	return wrapPath("fdatasync", f.name, retry(func() error { return unix.Fdatasync(f.fd) }))
}

// Size implements File.
func (f *systemFile) Size() (size, allocated int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, 0, wrapPath("stat", f.name, err)
	}
	return st.Size, st.Blocks * 512, nil
}

// NextData implements File.
func (f *systemFile) NextData(offset int64) (int64, error) {
	at, err := unix.Seek(f.fd, offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		size, _, err := f.Size()
		return max(size, offset), err
	}
	return at, wrapPath("seek", f.name, err)
}

// Direct implements File.
func (f *systemFile) Direct() bool { return f.direct }

// Close implements File.
func (f *systemFile) Close() error { return wrapPath("close", f.name, unix.Close(f.fd)) }

// retry repeats what a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
