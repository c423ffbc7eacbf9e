package rows

// MaxClasses of a ClassMap.
const MaxClasses = 32

// Step is what each class of an arranged unit is filled up to, in symbols.
const Step = 64

// ClassMap says which channel is of which class. An arranged unit has its
// symbols class after class; in a class channel after channel, in a channel
// token after token; each class begins at a multiple of Step. It belongs to one
// goroutine while it is built.
type ClassMap struct {
	classes int
	classOf []uint8
	// counts has the number of channels of each class.
	counts [MaxClasses]int
	// at has where each channel begins in an arranged unit of so many tokens; working
	// memory.
	at     []int
	tokens int
}

// Build sets m; it allocates only to grow.
func (m *ClassMap) Build(classOf []uint8, classes int) {
	must(classes >= 1 && classes <= MaxClasses)
	m.classes, m.counts, m.tokens = classes, [MaxClasses]int{}, 0
	m.classOf = append(m.classOf[:0], classOf...)
	for _, c := range classOf {
		must(int(c) < classes)
		m.counts[c]++
	}
	if cap(m.at) < len(classOf) {
		m.at = make([]int, len(classOf))
	}
	m.at = m.at[:len(classOf)]
}

// Channels is the number of channels of a class.
func (m *ClassMap) Channels(class int) int { return m.counts[class] }

// Size is the number of symbols of an arranged unit.
func (m *ClassMap) Size(tokens int) int {
	n := 0
	for _, k := range m.counts[:m.classes] {
		n += (k*tokens + Step - 1) / Step * Step
	}
	return n
}

// Places returns where each channel begins in an arranged unit of so many tokens.
// It is m's working memory: the next call with other tokens changes it.
func (m *ClassMap) Places(tokens int) []int {
	m.place(tokens)
	return m.at
}

// place sets m.at for an arranged unit of so many tokens.
func (m *ClassMap) place(tokens int) {
	if m.tokens == tokens {
		return
	}
	m.tokens = tokens
	var next [MaxClasses]int
	n := 0
	for c, k := range m.counts[:m.classes] {
		next[c] = n
		n += (k*tokens + Step - 1) / Step * Step
	}
	for ch, c := range m.classOf {
		m.at[ch] = next[c]
		next[c] += tokens
	}
}

// Scatter brings an arranged unit into the order of tokens. It uses m's working
// memory.
func (o *Ops) Scatter(symbols, src []byte, m *ClassMap, tokens int) {
	o.ScatterTokens(symbols, src, m, tokens, 0, tokens)
}

// ScatterTokens does that with n of the tokens, from the token first on.
func (o *Ops) ScatterTokens(symbols, src []byte, m *ClassMap, tokens, first, n int) {
	dims := len(m.classOf)
	must(first >= 0 && n >= 0 && first+n <= tokens && len(symbols) == dims*n && len(src) == m.Size(tokens))
	m.place(tokens)
	rows, channels := 0, 0
	if o.wide {
		rows, channels = n/64*64, dims/16*16
		for c := 0; c < channels && rows > 0; c += 16 {
			scatterAVX512(&symbols[c], dims, &src[first], &m.at[c], rows/64)
		}
	} else if o.avx2 {
		rows, channels = n/32*32, dims/16*16
		for c := 0; c < channels && rows > 0; c += 16 {
			scatterAVX2(&symbols[c], dims, &src[first], &m.at[c], rows/32)
		}
	}
	if rows == n && channels == dims {
		return
	}
	for ch, at := range m.at {
		from := 0
		if ch < channels {
			from = rows
		}
		for t := from; t < n; t++ {
			symbols[t*dims+ch] = src[at+first+t]
		}
	}
}

// Gather is the reverse. What fills up the classes stays as it is in dst. It
// uses m's working memory.
func (o *Ops) Gather(dst, symbols []byte, m *ClassMap, tokens int) {
	dims := len(m.classOf)
	must(len(symbols) == dims*tokens && len(dst) == m.Size(tokens))
	m.place(tokens)
	rows, channels := 0, 0
	if o.wide {
		rows, channels = tokens/64*64, dims/16*16
		for c := 0; c < channels && rows > 0; c += 16 {
			gatherAVX512(&dst[0], &m.at[c], &symbols[c], dims, rows/64)
		}
	} else if o.avx2 {
		rows, channels = tokens/32*32, dims/16*16
		for c := 0; c < channels && rows > 0; c += 16 {
			gatherAVX2(&dst[0], &m.at[c], &symbols[c], dims, rows/32)
		}
	}
	if rows == tokens && channels == dims {
		return
	}
	for ch, at := range m.at {
		from := 0
		if ch < channels {
			from = rows
		}
		for t := from; t < tokens; t++ {
			dst[at+t] = symbols[t*dims+ch]
		}
	}
}
