package nvme

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/storage/segment"
)

// need is what must be free: files of a row and as much again.
const need = 12 << 30

// place is the folder that everything lies in, on a disk.
type place struct {
	dir string
	// major and minor name the block device.
	major, minor uint32
}

// newPlace makes a folder in dir, which must be on a file system with direct
// I/O and room.
func newPlace(dir string, free int64) (_ *place, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &place{}
	if p.dir, err = os.MkdirTemp(dir, "larder-nvme-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return nil, fmt.Errorf("%s is memory: the set needs a folder on a disk", dir)
	}
	f, err := segment.SystemFS{}.Create(filepath.Join(p.dir, "probe"), false)
	if err != nil {
		return nil, fmt.Errorf("%s: no direct I/O: %w", dir, err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if got := int64(fs.Bavail) * fs.Bsize; got < free {
		return nil, fmt.Errorf("%s: %d MiB are free, the set needs %d", dir, got>>20, free>>20)
	}
	var st unix.Stat_t
	if err := unix.Stat(p.dir, &st); err != nil {
		return nil, err
	}
	p.major, p.minor = unix.Major(st.Dev), unix.Minor(st.Dev)
	return p, nil
}

// sub is a new folder in it.
func (p *place) sub(name string) (string, error) {
	return os.MkdirTemp(p.dir, name+"-")
}

func (p *place) close() { _ = os.RemoveAll(p.dir) }
