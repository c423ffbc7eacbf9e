package codec

import "github.com/larderkv/larder/codec/rows"

// source is the rows of a unit behind its sinks, as what quantizes them reads
// them: bf16 where it lies, anything else converted before.
type source struct {
	tokens int
	pivot  []float32 // the first row
	x      []float32 // all rows; nil for bf16

	ops    *rows.Ops
	raw    []byte
	stride int
}

func (e *Encoder) source(u *unit, raw []byte, sinks int) *source {
	s := &e.from
	*s = source{tokens: u.tokens - sinks, ops: e.work.ops, stride: u.stride}
	if u.dtype == BF16 {
		s.raw = raw[u.offset+sinks*u.stride:]
		s.pivot = resize(&e.x, u.dims)
		u.dtype.load(s.pivot, u.row(raw, sinks))
		return s
	}
	s.x = resize(&e.x, s.tokens*u.dims)
	for t := range s.tokens {
		u.dtype.load(s.x[t*u.dims:(t+1)*u.dims], u.row(raw, sinks+t))
	}
	s.pivot = s.x[:u.dims]
	return s
}

// sums sets, for each channel, sum and sq to those of v - pivot and its square,
// token after token.
func (s *source) sums(sum, sq []float32) {
	if s.x == nil {
		s.ops.StatsBF16(sum, sq, s.raw, s.stride, s.tokens)
		return
	}
	dims := len(s.pivot)
	clear(sum)
	clear(sq)
	for t := 1; t < s.tokens; t++ {
		for c, v := range s.x[t*dims : (t+1)*dims] {
			d := float32(v - s.pivot[c])
			sum[c] = float32(sum[c] + d)
			sq[c] = float32(sq[c] + float32(d*d))
		}
	}
}

// steps sets q to (v - mean) x inv, rounded; false where one is not below limit.
func (s *source) steps(q []int16, mean []float32, inv, limit float32) bool {
	if s.x == nil {
		return s.ops.QuantizeBF16(q, s.raw, s.stride, s.tokens, mean, inv, limit)
	}
	dims := len(s.pivot)
	for t := range s.tokens {
		row, out := s.x[t*dims:(t+1)*dims], q[t*dims:(t+1)*dims]
		for c, v := range row {
			r := float32(float32(v-mean[c]) * inv)
			if !(abs(r) < limit) {
				return false
			}
			out[c] = int16(roundEven(r))
		}
	}
	return true
}
