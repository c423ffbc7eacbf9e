package rows

// Set is a set of bytes. The zero value is empty.
type Set struct {
	// Bit i of low[k] stands for the byte 16 i + k, of high[k] for 128 more.
	low, high [16]byte
}

// Add puts b into the set.
func (s *Set) Add(b byte) {
	if b < 128 {
		s.low[b&15] |= 1 << (b >> 4)
	} else {
		s.high[b&15] |= 1 << (b >> 4 & 7)
	}
}

// Has reports whether b is in the set.
func (s *Set) Has(b byte) bool {
	if b < 128 {
		return s.low[b&15]>>(b>>4)&1 != 0
	}
	return s.high[b&15]>>(b>>4&7)&1 != 0
}

// Outside sets bit i % 64 of masks[i / 64] if b[i] is not in the set, else clears it;
// so those behind the last one. It returns how many are not.
func (o *Ops) Outside(masks []uint64, b []byte, s *Set) (n int) {
	must(len(masks) == (len(b)+63)/64)
	from := 0
	if len(b) >= group {
		switch {
		case o.wide:
			from = len(b) / group
			n = outsideAVX512(&masks[0], &b[0], from, s)
		case o.avx2:
			from = len(b) / group
			n = outsideAVX2(&masks[0], &b[0], from, s)
		}
	}
	if from == len(masks) {
		return n
	}
	var is [256]bool
	for v := range is {
		is[v] = !s.Has(byte(v))
	}
	clear(masks[from:])
	for i, v := range b[from*group:] {
		if is[v] {
			masks[from+i/64] |= 1 << (i % 64)
			n++
		}
	}
	return n
}
