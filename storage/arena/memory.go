package arena

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// memory is one mapped memfd.
type memory struct {
	fd  int
	mem []byte
	// huge: reserved 2 MiB pages were granted.
	huge bool
}

// newMemory makes a sealed memfd of that size and maps it read-write. hugetlb
// falls back to ordinary pages where there are too few.
func newMemory(name string, size int64, huge HugePages) (*memory, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if huge == HugeTLB2M && size%(2<<20) == 0 {
		if m, err := mapNew(name, size, flags|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB); err == nil {
			m.huge = true
			return m, nil
		}
	}
	m, err := mapNew(name, size, flags)
	if err != nil {
		return nil, err
	}
	if huge != NoHugePages {
		// Advice: where the kernel does not follow it, Stats shows 0.
		_ = unix.Madvise(m.mem, unix.MADV_HUGEPAGE)
	}
	return m, nil
}

func mapNew(name string, size int64, flags int) (*memory, error) {
	fd, err := unix.MemfdCreate(name, flags)
	if err != nil {
		return nil, fmt.Errorf("memfd_create %s: %w", name, err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: set size %d: %w", name, size, err)
	}
	m := &memory{fd: fd}
	if err := m.seal(unix.F_SEAL_SHRINK | unix.F_SEAL_GROW); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err := m.mapShared(size); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return m, nil
}

// finish forbids further seals: a client could make the memory read-only for
// all who come later. guarded forbids new writable mappings too.
func (m *memory) finish(guarded bool) error {
	seals := unix.F_SEAL_SEAL
	if guarded {
		seals |= unix.F_SEAL_FUTURE_WRITE
	}
	return m.seal(seals)
}

func (m *memory) mapShared(size int64) error {
	mem, err := unix.Mmap(m.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", size, err)
	}
	m.mem = mem
	// Prompts' KV does not belong into core dumps.
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	return nil
}

func (m *memory) seal(seals int) error {
	if _, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memfd (seals %#x): %w", seals, err)
	}
	return nil
}

// populate backs all of the memory now and returns how much of it.
func (m *memory) populate() (int64, error) {
	if err := unix.Madvise(m.mem, unix.MADV_POPULATE_WRITE); err != nil {
		return 0, fmt.Errorf("prefault %d bytes: %w", len(m.mem), err)
	}
	return int64(len(m.mem)), nil
}

// adoptMemory maps a memfd of a predecessor. The caller keeps fd on an error.
// Without the seals a client could truncate it under our feet.
func adoptMemory(fd int, size int64) (*memory, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW; seals&want != want || seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return nil, fmt.Errorf("descriptor %d has seals %#x: not an arena that can be adopted", fd, seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if st.Size != size {
		return nil, fmt.Errorf("descriptor %d has %d bytes, expected %d", fd, st.Size, size)
	}
	m := &memory{fd: fd}
	return m, m.mapShared(size)
}

func (m *memory) close() error {
	err := unix.Munmap(m.mem)
	if e := unix.Close(m.fd); err == nil {
		err = e
	}
	m.mem, m.fd = nil, -1
	return err
}
