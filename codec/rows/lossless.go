package rows

import "encoding/binary"

// A bf16 is a sign, 8 bits of exponent and 7 of mantissa. Its rest is one byte:
// mantissa, with the sign as the highest bit.

// SplitBF16 sets exps to the exponents and rests to the rests of tokens rows of
// dims elements, stride bytes apart.
func (o *Ops) SplitBF16(exps, rests, src []byte, stride, tokens, dims int) {
	fits(src, stride, tokens, dims)
	must(len(exps) == tokens*dims && len(rests) == len(exps))
	if o.wide && dims%group == 0 && len(exps) > 0 {
		splitBF16AVX512(&exps[0], &rests[0], &src[0], stride, dims/group, tokens)
		return
	}
	if o.avx2 && dims%half == 0 && len(exps) > 0 {
		splitBF16AVX2(&exps[0], &rests[0], &src[0], stride, dims/half, tokens)
		return
	}
	for t := range tokens {
		row := src[t*stride:]
		e, r := exps[t*dims:(t+1)*dims], rests[t*dims:(t+1)*dims]
		for c := range e {
			v := binary.LittleEndian.Uint16(row[2*c:])
			e[c], r[c] = byte(v>>7), byte(v&0x7f|v>>8&0x80)
		}
	}
}

// JoinBF16 is the reverse: the exponent is the symbol plus first - 1, modulo
// 256. It returns how many symbols are 0 and the greatest of them; of a symbol
// whose exponent is not 0..255, dst gets anything.
func (o *Ops) JoinBF16(dst []byte, stride, tokens, dims int, symbols, rests []byte, first int) (zeros int, greatest byte) {
	fits(dst, stride, tokens, dims)
	must(len(symbols) == tokens*dims && len(rests) == len(symbols))
	if o.wide && dims%group == 0 && len(symbols) > 0 {
		return joinBF16AVX512(&dst[0], stride, &symbols[0], &rests[0], dims/group, tokens, first-1)
	}
	if o.avx2 && dims%half == 0 && len(symbols) > 0 {
		return joinBF16AVX2(&dst[0], stride, &symbols[0], &rests[0], dims/half, tokens, first-1)
	}
	for t := range tokens {
		row := dst[t*stride:]
		rest := rests[t*dims : (t+1)*dims]
		for c, s := range symbols[t*dims : (t+1)*dims] {
			if s == 0 {
				zeros++
			}
			greatest = max(greatest, s)
			e, r := uint16(byte(int(s)+first-1)), uint16(rest[c])
			binary.LittleEndian.PutUint16(row[2*c:], r&0x7f|e<<7|r>>7<<15)
		}
	}
	return zeros, greatest
}

// SumBytes adds, for each channel, the bytes of all tokens to sums.
func (o *Ops) SumBytes(sums []uint32, src []byte) {
	dims := len(sums)
	must(dims > 0 && len(src)%dims == 0)
	// Words hold the sums of 256 bytes.
	if o.wide && dims%group == 0 {
		for len(src) > 0 {
			n := min(len(src)/dims, 256)
			sumBytesAVX512(&sums[0], &src[0], dims/group, n)
			src = src[n*dims:]
		}
		return
	}
	if o.avx2 && dims%half == 0 {
		for len(src) > 0 {
			n := min(len(src)/dims, 256)
			sumBytesAVX2(&sums[0], &src[0], dims/half, n)
			src = src[n*dims:]
		}
		return
	}
	for ; len(src) > 0; src = src[dims:] {
		for c, b := range src[:dims] {
			sums[c] += uint32(b)
		}
	}
}
