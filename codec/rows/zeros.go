package rows

// Zeros sets bit i % 64 of masks[i / 64] if b[i] is 0, else clears it; so those
// behind the last one.
func (o *Ops) Zeros(masks []uint64, b []byte) {
	must(len(masks) == (len(b)+63)/64)
	from := 0
	if o.wide && len(b) >= group {
		from = len(b) / group
		zerosAVX512(&masks[0], &b[0], from)
	} else if o.avx2 && len(b) >= group {
		from = len(b) / group
		zerosAVX2(&masks[0], &b[0], from)
	}
	for i := range masks[from:] {
		masks[from+i] = 0
	}
	for i, v := range b[from*group:] {
		if v == 0 {
			masks[from+i/64] |= 1 << (i % 64)
		}
	}
}
