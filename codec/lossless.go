package codec

// Lossless splits an element into its exponent, which is entropy-coded, and the
// rest (sign and mantissa), which is noise and kept as it is.

// restBits is the number of bits beside the exponent.
func (d DType) restBits() int { return dtypes[d].man + 1 }

// restSize is the size of the rest plane of n elements: whole bytes of each
// element first, then what is left of each, packed.
func (d DType) restSize(n int) int {
	r := d.restBits()
	return n*(r/8) + (n*(r%8)+7)/8
}

// bits is one element of a row.
func (d DType) bits(row []byte, at int) (v uint32) {
	size := d.Size()
	for k := size - 1; k >= 0; k-- {
		v = v<<8 | uint32(row[at*size+k])
	}
	return v
}

// exponentOf is the exponent of an element's bits.
func (d DType) exponentOf(bits uint32) uint8 {
	return uint8(bits >> dtypes[d].man & (1<<dtypes[d].exp - 1))
}

// split sets exps to the exponents of a row and rests to the rests.
func (d DType) split(exps []uint8, rests []uint32, row []byte) {
	man, exp := dtypes[d].man, dtypes[d].exp
	for i := range exps {
		v := d.bits(row, i)
		exps[i] = d.exponentOf(v)
		rests[i] = v&(1<<man-1) | v>>(man+exp)<<man
	}
}

// join is the reverse of split.
func (d DType) join(row []byte, exps []uint8, rests []uint32) {
	size, man, exp := d.Size(), dtypes[d].man, dtypes[d].exp
	for i, e := range exps {
		v := rests[i]&(1<<man-1) | uint32(e)<<man | rests[i]>>man<<(man+exp)
		for k := range size {
			row[i*size+k] = byte(v)
			v >>= 8
		}
	}
}

// appendRests writes the rest plane.
func (d DType) appendRests(dst []byte, rests []uint32) []byte {
	whole, left := d.restBits()/8, d.restBits()%8
	for _, v := range rests {
		for range whole {
			dst = append(dst, byte(v))
			v >>= 8
		}
	}
	if left == 0 {
		return dst
	}
	acc, n := uint32(0), 0
	for _, v := range rests {
		acc |= v >> (8 * whole) << n
		for n += left; n >= 8; n -= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}

// readRests is the reverse; len(src) is restSize(len(rests)).
func (d DType) readRests(rests []uint32, src []byte) error {
	whole, left := d.restBits()/8, d.restBits()%8
	packed := src[whole*len(rests):]
	acc, n := uint32(0), 0
	for i := range rests {
		v := uint32(0)
		for k := range whole {
			v |= uint32(src[i*whole+k]) << (8 * k)
		}
		if left > 0 {
			if n < left {
				acc |= uint32(packed[0]) << n
				packed, n = packed[1:], n+8
			}
			v |= acc & (1<<left - 1) << (8 * whole)
			acc >>= left
			n -= left
		}
		rests[i] = v
	}
	if acc != 0 {
		return corrupt("rests", "padding is not zero")
	}
	return nil
}
