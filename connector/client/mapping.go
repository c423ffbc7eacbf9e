package client

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// writeSegment is the segment index of slots in the client's own write segment
// (guarded mode).
const writeSegment = 65535

// hugePage is the alignment at which the kernel can map a huge page as one.
const hugePage = 2 << 20

// mapping is the arena of one session in this process. Sections (enter,
// leave) keep it mapped; it goes away once it is retired and the last section
// has ended.
type mapping struct {
	segments []mapped
	write    mapped
	lifetime int
	// gone is called once, without locks, when no access can happen any more.
	gone func()

	mu       sync.Mutex
	sections int
	retired  bool
}

// mapped is one mapping outside of the Go heap.
type mapped struct {
	base unsafe.Pointer
	size uint64
}

// newMapping maps the descriptors and closes all but the lifetime pipe. On an
// error it closes that one too.
func newMapping(fds []int, arena *larderv1.ArenaInfo, prefault bool, gone func()) (_ *mapping, err error) {
	m := &mapping{lifetime: -1, gone: gone}
	defer func() {
		if err != nil {
			closeAll(fds)
			m.unmap()
		}
	}()
	sizes := arena.GetSegmentBytes()
	guarded := arena.GetMode() == larderv1.ArenaMode_ARENA_MODE_GUARDED
	want := len(sizes) + 1
	if guarded {
		want++
	}
	if len(fds) != want {
		return nil, fault.New(fault.Unavailable, "hello.arena", "wrong number of descriptors").With(len(fds), want)
	}
	prot := unix.PROT_READ
	if !guarded {
		prot |= unix.PROT_WRITE
	}
	for i, size := range sizes {
		seg, err := mapSegment(fds[i], size, prot, prefault)
		if err != nil {
			return nil, fmt.Errorf("arena segment %d: %w", i, err)
		}
		m.segments = append(m.segments, seg)
	}
	if guarded {
		m.write, err = mapSegment(fds[len(sizes)], arena.GetWriteSegmentBytes(), unix.PROT_READ|unix.PROT_WRITE, prefault)
		if err != nil {
			return nil, fmt.Errorf("write segment: %w", err)
		}
	}
	last := len(fds) - 1
	m.lifetime = fds[last]
	closeAll(fds[:last])
	return m, nil
}

// mapSegment maps size bytes of fd at an address that huge pages can use. The
// mapping is not inherited by forks: a child must not touch slots that the
// daemon believes to be its parent's.
func mapSegment(fd int, size uint64, prot int, prefault bool) (mapped, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return mapped{}, fault.Wrap(fault.Unavailable, err, "", "fstat")
	}
	if size == 0 || size > 1<<46 || st.Size < int64(size) {
		return mapped{}, fault.New(fault.Unavailable, "hello.arena.segment_bytes", "the segment is smaller than announced").With(st.Size, size)
	}
	// Reserve more than needed, put the segment at the first aligned address
	// and give the rest back.
	room := size + hugePage
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(room), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return mapped{}, fault.Wrap(fault.Unavailable, err, "", "no address space for the arena").With(size, nil)
	}
	skip := (hugePage - uint64(uintptr(base))%hugePage) % hugePage
	at := unsafe.Add(base, skip)
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(size), prot, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		_ = unix.MunmapPtr(base, uintptr(room))
		return mapped{}, fault.Wrap(fault.Unavailable, err, "", "cannot map the arena").With(size, nil)
	}
	// The ends of the reservation; the segment's last page may be partial.
	used := (size + 4095) &^ 4095
	if skip > 0 {
		_ = unix.MunmapPtr(base, uintptr(skip))
	}
	if tail := room - skip - used; tail > 0 {
		_ = unix.MunmapPtr(unsafe.Add(at, used), uintptr(tail))
	}
	seg := mapped{base: at, size: size}
	if err := unix.Madvise(seg.slice(0, size), unix.MADV_DONTFORK); err != nil {
		_ = unix.MunmapPtr(at, uintptr(size))
		return mapped{}, fault.Wrap(fault.Unavailable, err, "", "MADV_DONTFORK")
	}
	if prefault {
		advice := unix.MADV_POPULATE_READ
		if prot&unix.PROT_WRITE != 0 {
			advice = unix.MADV_POPULATE_WRITE
		}
		// Refused by kernels before 5.14: the pages fault in one by one then.
		_ = unix.Madvise(seg.slice(0, size), advice)
	}
	return seg, nil
}

func (s mapped) slice(offset, length uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(s.base, offset)), length)
}

// view returns the first length bytes of the slot. A slot outside of the
// mapping means that the daemon and this process disagree about the arena.
func (m *mapping) view(slot *larderv1.Slot, length uint64) ([]byte, error) {
	seg := m.write
	if i := slot.GetSegment(); i != writeSegment {
		if int(i) >= len(m.segments) {
			return nil, fault.New(fault.Unavailable, "slot.segment", "outside of the arena").With(i, len(m.segments))
		}
		seg = m.segments[i]
	}
	off := slot.GetOffset()
	if length > slot.GetLength() || off > seg.size || length > seg.size-off {
		return nil, fault.New(fault.Unavailable, "slot.offset", "outside of the segment").With(off+length, seg.size)
	}
	return seg.slice(off, length), nil
}

// enter starts a section; false where the mapping is going away.
func (m *mapping) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired {
		return false
	}
	m.sections++
	return true
}

// leave ends a section.
func (m *mapping) leave() {
	m.mu.Lock()
	m.sections--
	last := m.retired && m.sections == 0
	m.mu.Unlock()
	if last {
		m.end()
	}
}

// retire refuses new sections and ends the mapping after the last one.
func (m *mapping) retire() {
	m.mu.Lock()
	last := !m.retired && m.sections == 0
	m.retired = true
	m.mu.Unlock()
	if last {
		m.end()
	}
}

func (m *mapping) end() {
	m.unmap()
	m.gone()
}

func (m *mapping) unmap() {
	for _, s := range append(m.segments, m.write) {
		if s.base != nil {
			_ = unix.MunmapPtr(s.base, uintptr(s.size))
		}
	}
	m.segments, m.write = nil, mapped{}
	// Only now: the daemon may take the closed pipe for the end of the process.
	if m.lifetime >= 0 {
		_ = unix.Close(m.lifetime)
		m.lifetime = -1
	}
}
