package rows

import (
	"encoding/binary"
	"math"
)

// ReconstructBF16 writes tokens rows of bf16, stride bytes apart, of q: step x
// value, exactly, plus the channel's mean, rounded to float32 and then to the
// nearest bf16, ties to even. step x value is exact in float32, which is the
// caller's business (a step of 13 bits at most). Results are finite, and 0 or at
// least 2^-126 in magnitude.
func (o *Ops) ReconstructBF16(dst []byte, stride, tokens int, q []int16, mean []float32, step float32) {
	dims := len(mean)
	fits(dst, stride, tokens, dims)
	must(len(q) == tokens*dims)
	if o.wide && dims%group == 0 && len(q) > 0 {
		reconstructAVX512(&dst[0], stride, &q[0], &mean[0], dims/group, tokens, step)
		return
	}
	if o.avx2 && dims%half == 0 && len(q) > 0 {
		reconstructAVX2(&dst[0], stride, &q[0], &mean[0], dims/half, tokens, step)
		return
	}
	for t := range tokens {
		row := dst[t*stride:]
		for c, v := range q[t*dims : (t+1)*dims] {
			binary.LittleEndian.PutUint16(row[2*c:], nearest(float32(step*float32(v))+mean[c]))
		}
	}
}

// ReconstructSymbolsBF16 is Values and ReconstructBF16 in one: it returns how many
// symbols are 0, and what it writes counts only if none is.
func (o *Ops) ReconstructSymbolsBF16(dst []byte, stride, tokens int, symbols []byte, zero int, mean []float32, step float32) (escapes int) {
	dims := len(mean)
	fits(dst, stride, tokens, dims)
	must(len(symbols) == tokens*dims)
	if o.bf16 && dims%group == 0 && len(symbols) > 0 {
		return reconstructSymbolsBF16(&dst[0], stride, &symbols[0], &mean[0], dims/group, tokens, zero, step)
	}
	if o.wide && dims%group == 0 && len(symbols) > 0 {
		return reconstructSymbolsAVX512(&dst[0], stride, &symbols[0], &mean[0], dims/group, tokens, zero, step)
	}
	if o.avx2 && dims%half == 0 && len(symbols) > 0 {
		return reconstructSymbolsAVX2(&dst[0], stride, &symbols[0], &mean[0], dims/half, tokens, zero, step)
	}
	for t := range tokens {
		row := dst[t*stride:]
		for c, s := range symbols[t*dims : (t+1)*dims] {
			if s == 0 {
				escapes++
			}
			binary.LittleEndian.PutUint16(row[2*c:], nearest(float32(step*float32(int(s)-zero))+mean[c]))
		}
	}
	return escapes
}

// nearest returns the nearest bf16, ties to even, of a finite x.
func nearest(x float32) uint16 {
	b := math.Float32bits(x)
	b += 0x7fff + b>>16&1
	return uint16(b >> 16)
}

// StatsBF16 sets, for each channel, sum to the sum of v - pivot over the rows
// behind the first one, and sq to that of its square; pivot is the first row.
// Each operation is rounded to float32, token after token.
func (o *Ops) StatsBF16(sum, sq []float32, src []byte, stride, tokens int) {
	dims := len(sum)
	fits(src, stride, tokens, dims)
	must(len(sq) == dims && tokens > 0)
	if o.wide && dims%group == 0 && dims > 0 {
		statsAVX512(&sum[0], &sq[0], &src[0], stride, dims/group, tokens)
		return
	}
	if o.avx2 && dims%half == 0 && dims > 0 {
		statsAVX2(&sum[0], &sq[0], &src[0], stride, dims/half, tokens)
		return
	}
	clear(sum)
	clear(sq)
	for t := 1; t < tokens; t++ {
		row := src[t*stride:]
		for c := range sum {
			d := float32(load(row, c) - load(src, c))
			sum[c] = float32(sum[c] + d)
			sq[c] = float32(sq[c] + float32(d*d))
		}
	}
}

// QuantizeBF16 sets q to (v - mean) x inv, each operation rounded to float32,
// rounded to the nearest integer, ties to even. It reports whether all of them
// were below limit in magnitude before that, which is at most 32767; else q
// holds anything.
func (o *Ops) QuantizeBF16(q []int16, src []byte, stride, tokens int, mean []float32, inv, limit float32) bool {
	dims := len(mean)
	fits(src, stride, tokens, dims)
	must(len(q) == tokens*dims && limit <= math.MaxInt16)
	if o.wide && dims%group == 0 && len(q) > 0 {
		return quantizeAVX512(&q[0], &src[0], stride, &mean[0], dims/group, tokens, inv, limit) == 0
	}
	if o.avx2 && dims%half == 0 && len(q) > 0 {
		return quantizeAVX2(&q[0], &src[0], stride, &mean[0], dims/half, tokens, inv, limit) == 0
	}
	const big = 3 << 22
	for t := range tokens {
		row := src[t*stride:]
		out := q[t*dims : (t+1)*dims]
		for c := range out {
			r := float32(float32(load(row, c)-mean[c]) * inv)
			if !(r < limit && r > -limit) {
				return false
			}
			out[c] = int16(float32(float32(r+big) - big))
		}
	}
	return true
}

func load(row []byte, c int) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(row[2*c:])) << 16)
}

// fits: tokens rows of dims bf16, stride bytes apart, lie in b.
func fits(b []byte, stride, tokens, dims int) {
	must(tokens == 0 || stride >= 2*dims && len(b) >= (tokens-1)*stride+2*dims)
}

// QuantizeSymbolsBF16 is QuantizeBF16 and Symbols in one. scratch has the elements
// of dst; what it holds after the call means nothing.
func (o *Ops) QuantizeSymbolsBF16(dst []byte, scratch []int16, src []byte, stride, tokens int, mean []float32, inv, limit float32) bool {
	dims := len(mean)
	fits(src, stride, tokens, dims)
	must(len(dst) == tokens*dims && len(scratch) == len(dst) && limit <= math.MaxInt16)
	if o.wide && dims%group == 0 && len(dst) > 0 && limit > 128 &&
		quantizeSymbolsAVX512(&dst[0], &src[0], stride, &mean[0], dims/group, tokens, inv) == 0 {
		return true // every value has a symbol
	}
	if o.avx2 && dims%half == 0 && len(dst) > 0 && limit > 128 &&
		quantizeSymbolsAVX2(&dst[0], &src[0], stride, &mean[0], dims/half, tokens, inv) == 0 {
		return true
	}
	if !o.QuantizeBF16(scratch, src, stride, tokens, mean, inv, limit) {
		return false
	}
	o.Symbols(dst, scratch)
	return true
}
