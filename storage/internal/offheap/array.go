package offheap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Array is n zeroed values of T.
type Array[T any] struct {
	mem []byte
	all []T
}

// Map reserves n values. Memory is used as pages are touched.
func Map[T any](n int) (*Array[T], error) {
	var t T
	size := int(unsafe.Sizeof(t))
	if n < 1 || n > (1<<46)/size {
		return nil, fmt.Errorf("offheap: %d values of %d bytes", n, size)
	}
	mem, err := unix.Mmap(-1, 0, n*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("offheap: map %d bytes: %w", n*size, err)
	}
	return &Array[T]{mem: mem, all: unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n)}, nil
}

// All returns the values. It aliases the array until Close.
func (a *Array[T]) All() []T { return a.all }

// Close returns the memory. A second Close does nothing.
func (a *Array[T]) Close() error {
	if a.mem == nil {
		return nil
	}
	mem := a.mem
	a.mem, a.all = nil, nil
	return unix.Munmap(mem)
}
