package segment

import (
	"math/bits"
	"sync"
	"unsafe"
)

// buffers lends page-aligned memory.
type buffers struct {
	pools [maxBufferShift - minBufferShift + 1]sync.Pool
}

const (
	minBufferShift = 12
	maxBufferShift = 27
)

// buffer is page-aligned memory of exactly the length asked for.
type buffer struct {
	b     []byte
	whole []byte
}

// get returns n bytes of any content. put gives them back.
func (p *buffers) get(n int) *buffer {
	shift := max(bits.Len(uint(n-1)), minBufferShift)
	if shift > maxBufferShift {
		return &buffer{b: aligned(n)}
	}
	if x, ok := p.pools[shift-minBufferShift].Get().(*buffer); ok {
		x.b = x.whole[:n]
		return x
	}
	whole := aligned(1 << shift)
	return &buffer{b: whole[:n], whole: whole}
}

func (p *buffers) put(x *buffer) {
	if x.whole != nil {
		p.pools[bits.Len(uint(len(x.whole)))-1-minBufferShift].Put(x)
	}
}

// aligned returns n bytes that begin on a page.
func aligned(n int) []byte {
	b := make([]byte, n+PageBytes)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (PageBytes - 1)
	return b[skip : int(skip)+n : int(skip)+n]
}

func isAligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(PageBytes-1) == 0
}
