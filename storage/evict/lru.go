package evict

import "github.com/larderkv/larder/storage/internal/offheap"

type link struct{ prev, next uint32 }

// LRU evicts the least recently used first. It is a doubly linked list in one
// off-heap array, 8 bytes a reference; entry 0 is the list's ends: its next is
// the coldest, its prev the hottest.
type LRU struct {
	links *offheap.Array[link]
	len   int
	high  uint32
}

// NewLRU is a New.
func NewLRU(capacity int) (Policy, error) {
	links, err := offheap.Map[link](capacity + 1)
	if err != nil {
		return nil, err
	}
	return &LRU{links: links}, nil
}

// Add implements Policy.
func (l *LRU) Add(ref uint32) { l.AddBelow(ref, 0) }

// AddBelow implements Policy. Entry 0 is above the hottest.
func (l *LRU) AddBelow(ref, above uint32) {
	s := l.links.All()
	below := s[above].prev
	s[ref] = link{prev: below, next: above}
	s[below].next = ref
	s[above].prev = ref
	l.high = max(l.high, ref)
	l.len++
}

// Touch implements Policy.
func (l *LRU) Touch(ref uint32) {
	if l.links.All()[0].prev == ref {
		return
	}
	l.Remove(ref)
	l.Add(ref)
}

// Remove implements Policy.
func (l *LRU) Remove(ref uint32) {
	s := l.links.All()
	e := s[ref]
	s[e.prev].next = e.next
	s[e.next].prev = e.prev
	l.len--
}

// Coldest implements Policy.
func (l *LRU) Coldest(dst []uint32) int {
	s := l.links.All()
	n := 0
	for ref := s[0].next; ref != 0 && n < len(dst); ref = s[ref].next {
		dst[n] = ref
		n++
	}
	return n
}

// Len implements Policy.
func (l *LRU) Len() int { return l.len }

// Bytes implements Policy: the part of the array that was ever used.
func (l *LRU) Bytes() int64 { return 8 * (int64(l.high) + 1) }

// Close implements Policy.
func (l *LRU) Close() error { return l.links.Close() }
