package rig

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Private returns n bytes of ordinary memory outside of the Go heap, with every
// page touched and different bytes in each.
func Private(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	x := uint64(0x9e3779b97f4a7c15)
	for i := 0; i < n; i += 64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i], b[i+17], b[i+42] = byte(x), byte(x>>8), byte(x>>16)
	}
	return b, nil
}

// Shared returns n bytes of a memfd, mapped like an arena's segment, with every
// page touched: the slots of the baselines.
func Shared(n int) ([]byte, error) {
	fd, err := unix.MemfdCreate("larder-bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		return nil, fmt.Errorf("memfd of %d bytes: %w", n, err)
	}
	b, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	for i := 0; i < n; i += 4096 {
		b[i] = byte(i >> 12)
	}
	return b, nil
}

// Free unmaps what Private or Shared returned.
func Free(b []byte) { _ = unix.Munmap(b) }

// Ring hands out pieces of memory in turn, so that a working set is walked
// through and not one hot buffer.
type Ring struct {
	mem []byte
	at  int
}

// NewRing rotates through mem.
func NewRing(mem []byte) *Ring { return &Ring{mem: mem} }

// Next returns the next n bytes.
func (r *Ring) Next(n int) []byte {
	if r.at+n > len(r.mem) {
		r.at = 0
	}
	b := r.mem[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}
