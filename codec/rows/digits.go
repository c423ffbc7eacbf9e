package rows

// group is how many elements the assembly takes at a time, with AVX2 half where
// there are rows.
const (
	group = 64
	half  = group / 2
)

// Values sets q to the symbols less zero, and returns how many symbols are 0.
func (o *Ops) Values(q []int16, symbols []byte, zero int) (escapes int) {
	must(len(q) == len(symbols))
	from := 0
	if o.wide && len(q) >= group {
		from = len(q) / group * group
		escapes = valuesAVX512(&q[0], &symbols[0], from/group, zero)
	}
	for i := from; i < len(symbols); i++ {
		q[i] = int16(int(symbols[i]) - zero)
		if symbols[i] == 0 {
			escapes++
		}
	}
	return escapes
}

// Symbols sets dst to q plus 128 where that is 1..255, else to 0.
func (o *Ops) Symbols(dst []byte, q []int16) {
	must(len(dst) == len(q))
	from := 0
	if o.wide && len(q) >= group {
		from = len(q) / group * group
		symbolsAVX512(&dst[0], &q[0], from/group)
	}
	for i := from; i < len(q); i++ {
		s := int(q[i]) + 128
		if s < 0 || s > 255 {
			s = 0
		}
		dst[i] = byte(s)
	}
}

// A value v of a level becomes 3 v + digit of the next finer one, digit -1, 0 or
// 1. The digit's symbol is 1 + digit, or 1 - digit where v is negative; its
// context is class2 of its channel, and 1 more where v is not 0.

// Contexts sets ctx to the contexts of the digits that refine q. class2 has one
// entry for each channel.
func (o *Ops) Contexts(ctx []byte, q []int16, class2 []byte) {
	dims := len(class2)
	must(len(ctx) == len(q) && dims > 0 && len(q)%dims == 0)
	if o.wide && dims%group == 0 && len(q) > 0 {
		contextsAVX512(&ctx[0], &q[0], &class2[0], dims/group, len(q)/dims)
		return
	}
	for i, v := range q {
		k := class2[i%dims]
		if v != 0 {
			k++
		}
		ctx[i] = k
	}
}

// Merge refines q by the symbols of digits, 0..2.
func (o *Ops) Merge(q []int16, digits []byte) {
	must(len(q) == len(digits))
	from := 0
	if o.wide && len(q) >= group {
		from = len(q) / group * group
		mergeAVX512(&q[0], &digits[0], from/group)
	}
	for i := from; i < len(q); i++ {
		d, v := int16(digits[i])-1, q[i]
		if v < 0 {
			d = -d
		}
		q[i] = 3*v + d
	}
}

// Split makes q coarser, to the nearest multiple of three, and sets the symbols
// and contexts of the digits that Merge needs to come back. q is not -32768.
func (o *Ops) Split(q []int16, digits, ctx, class2 []byte) {
	dims := len(class2)
	must(len(digits) == len(q) && len(ctx) == len(q) && dims > 0 && len(q)%dims == 0)
	if o.wide && dims%group == 0 && len(q) > 0 {
		splitAVX512(&q[0], &digits[0], &ctx[0], &class2[0], dims/group, len(q)/dims)
		return
	}
	for i, v := range q {
		k := (int32(v)+1+32766)/3 - 10922 // floor((v + 1) / 3)
		d, c := int32(v)-3*k, class2[i%dims]
		if k != 0 {
			c++
		}
		if k < 0 {
			d = -d
		}
		q[i], digits[i], ctx[i] = int16(k), byte(d+1), c
	}
}

// Pairs sets ctx to 3 ctx + digit: the pair of a context and a digit's symbol, as
// one byte that Count takes.
func (o *Ops) Pairs(ctx, digits []byte) {
	must(len(ctx) == len(digits))
	from := 0
	if o.wide && len(ctx) >= group {
		from = len(ctx) / group * group
		pairsAVX512(&ctx[0], &digits[0], from/group)
	}
	for i := from; i < len(ctx); i++ {
		ctx[i] = 3*ctx[i] + digits[i]
	}
}
