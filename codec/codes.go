package codec

import (
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// code is how an Encoder codes the bytes of a class's plane: those of has are symbols
// of their own, all others escape.
type code struct {
	table rans.Table
	has   rows.Set
	// filler is a byte that costs least.
	filler byte
}

// fieldCodes are the codes of the classes of a field, which all its units share.
type fieldCodes struct{ plain, lossless []code }

// set makes the codes for tables.
func (f *fieldCodes) set(t *fieldTables) {
	for c := range resize(&f.plain, len(t.plain)) {
		f.plain[c].set(&t.plain[c], valueZero-int(t.zero)+1)
	}
	for c := range resize(&f.lossless, len(t.lossless)) {
		f.lossless[c].set(&t.lossless[c], int(t.exponent))
	}
}

// set makes c the code of a table whose symbol 1 is the byte first.
func (c *code) set(t *rans.Table, first int) {
	c.table.Recode(t, first)
	c.has = rows.Set{}
	likeliest, most := byte(0), t.Freq(0)
	outside := byte(0) // some byte that is not in the set
	for b := range 256 {
		f := 0
		if s := b - first + 1; s >= 1 && s <= 255 {
			f = t.Freq(byte(s))
		}
		if f == 0 {
			outside = byte(b)
			continue
		}
		c.has.Add(byte(b))
		if f > most {
			likeliest, most = byte(b), f
		}
	}
	if c.filler = likeliest; most == t.Freq(0) {
		c.filler = outside
	}
}

// take sets n.order to that of codes, n.src to the plane of a unit in this order, and
// n.escapes to the places of the bytes that are none of their class's. The plane is
// arranged by the classes in n.unit.classOf, of which number says the number among
// codes; it does not descend. The plane is n's then.
func (n *encoding) take(codes []code, classOf []uint8, number func(class uint8) uint8) {
	u, d := &n.u, n.unit
	n.order.arrange(classOf, len(codes), func(c int) *rans.Table { return &codes[c].table }, u.tokens)
	n.src = d.plane
	n.join(classOf, number)
	masks, escapes, at := resize(&n.masks, n.order.symbols/rows.Step), 0, 0
	for c := range codes {
		end := at + n.order.classes.Channels(c)*u.tokens
		next := at + wholeSteps(end-at)
		escapes += n.ops.Outside(masks[at/rows.Step:next/rows.Step], n.src[at:end], &codes[c].has)
		for at = end; at < next; at++ {
			n.src[at] = codes[c].filler
		}
	}
	n.findEscapes(escapes)
}

// join brings the channels of classes that have become one into the order of that
// one. Where classes are whole steps, the others' stay where they lie.
func (n *encoding) join(classOf []uint8, number func(class uint8) uint8) {
	u, plane, early := &n.u, n.unit.plane, &n.early
	early.Build(n.unit.classOf, maxClasses)
	var parts [maxClasses]int // classes that have become this one
	joined := false
	for c := range maxClasses {
		if early.Channels(c) > 0 {
			k := number(uint8(c))
			parts[k]++
			joined = joined || parts[k] > 1
		}
	}
	if !joined {
		return
	}
	from, to := early.Places(u.tokens), n.order.classes.Places(u.tokens)
	if u.tokens%rows.Step != 0 {
		n.src = resize(&n.arranged, n.order.symbols)
		for ch, at := range from {
			copy(n.src[to[ch]:to[ch]+u.tokens], plane[at:])
		}
		return
	}
	aside := resize(&n.arranged, len(plane))
	for ch, at := range from {
		if parts[classOf[ch]] > 1 {
			copy(aside[at:at+u.tokens], plane[at:])
		}
	}
	for ch, at := range from {
		if parts[classOf[ch]] > 1 {
			copy(plane[to[ch]:to[ch]+u.tokens], aside[at:])
		}
	}
}
