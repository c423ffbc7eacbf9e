package rows

import "math/bits"

// MaxClasses of a ClassMap.
const MaxClasses = 32

// Step is what each class of an arranged unit is filled up to, in symbols.
const Step = 64

// ClassMap says which channel is of which class. An arranged unit has its
// symbols class after class; in a class token after token, in a token channel
// after channel; each class begins at a multiple of Step. It belongs to one
// goroutine while it is built.
type ClassMap struct {
	dims, classes int
	// masks[g * classes + c] has the channels of group g (64 channels) that are
	// of class c.
	masks []uint64
	// channels of each class.
	counts [MaxClasses]int
}

// Build sets m; it allocates only to grow.
func (m *ClassMap) Build(classOf []uint8, classes int) {
	must(classes >= 1 && classes <= MaxClasses)
	groups := (len(classOf) + 63) / 64
	if cap(m.masks) < groups*classes {
		m.masks = make([]uint64, groups*classes)
	}
	m.masks = m.masks[:groups*classes]
	clear(m.masks)
	m.dims, m.classes, m.counts = len(classOf), classes, [MaxClasses]int{}
	for ch, c := range classOf {
		must(int(c) < classes)
		m.masks[ch/64*classes+int(c)] |= 1 << (ch % 64)
		m.counts[c]++
	}
}

// Size is the number of symbols of an arranged unit.
func (m *ClassMap) Size(tokens int) int {
	n := 0
	for _, k := range m.counts[:m.classes] {
		n += (k*tokens + Step - 1) / Step * Step
	}
	return n
}

// offsets sets where each class begins.
func (m *ClassMap) offsets(at *[MaxClasses]int, tokens int) {
	n := 0
	for c, k := range m.counts[:m.classes] {
		at[c] = n
		n += (k*tokens + Step - 1) / Step * Step
	}
}

// Scatter brings an arranged unit into the order of tokens.
func (o *Ops) Scatter(symbols, src []byte, m *ClassMap, tokens int) {
	must(len(symbols) == m.dims*tokens && len(src) == m.Size(tokens))
	if o.wide && len(symbols) > 0 {
		scatterWide(symbols, src, m, tokens)
		return
	}
	m.walk(tokens, func(token, arranged int) { symbols[token] = src[arranged] })
}

// Gather is the reverse. What fills up the classes stays as it is in dst.
func (o *Ops) Gather(dst, symbols []byte, m *ClassMap, tokens int) {
	must(len(symbols) == m.dims*tokens && len(dst) == m.Size(tokens))
	if o.wide && len(symbols) > 0 {
		gatherWide(dst, symbols, m, tokens)
		return
	}
	m.walk(tokens, func(token, arranged int) { dst[arranged] = symbols[token] })
}

// walk calls f for each symbol with its place in the order of tokens and where
// it is arranged.
func (m *ClassMap) walk(tokens int, f func(token, arranged int)) {
	var at [MaxClasses]int
	m.offsets(&at, tokens)
	for t := range tokens {
		for i, mask := range m.masks {
			c, first := i%m.classes, t*m.dims+i/m.classes*64
			for ; mask != 0; mask &= mask - 1 {
				f(first+bits.TrailingZeros64(mask), at[c])
				at[c]++
			}
		}
	}
}
