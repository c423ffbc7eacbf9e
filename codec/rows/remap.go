package rows

// Remap says which symbol a byte becomes: those of Low to Low + 127 that of Table,
// any other one 0.
type Remap struct {
	Low   byte
	Table [128]byte
}

// Remap sets dst to what the bytes of src become, and returns how many became 0.
func (o *Ops) Remap(dst, src []byte, r *Remap) (zeros int) {
	must(len(dst) == len(src))
	from := 0
	if o.wide && len(src) >= group {
		from = len(src) / group * group
		zeros = remapAVX512(&dst[0], &src[0], from/group, r)
	}
	for i := from; i < len(src); i++ {
		dst[i] = 0
		if at := src[i] - r.Low; at < 128 {
			dst[i] = r.Table[at]
		}
		if dst[i] == 0 {
			zeros++
		}
	}
	return zeros
}
