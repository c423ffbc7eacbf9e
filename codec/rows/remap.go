package rows

// Remap sets dst to src + add, modulo 256, where src is within low..high, else to
// 0, and returns how often that was.
func (o *Ops) Remap(dst, src []byte, low, high, add byte) (outside int) {
	must(len(dst) == len(src))
	if low > high {
		clear(dst)
		return len(dst)
	}
	from := 0
	if o.wide && len(src) >= group {
		from = len(src) / group * group
		outside = remapAVX512(&dst[0], &src[0], from/group, int(low), int(high), int(add))
	}
	for i := from; i < len(src); i++ {
		s := src[i]
		if s < low || s > high {
			dst[i] = 0
			outside++
			continue
		}
		dst[i] = s + add
	}
	return outside
}
