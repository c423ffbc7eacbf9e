package rows

// Count adds the symbols' counts to hist. The assembly compares with each
// symbol in turn, which is faster than a table where few different ones occur:
// in the symbols of one class.
func (o *Ops) Count(hist *[256]uint32, symbols []byte) {
	from := 0
	if o.wide && len(symbols) >= group {
		groups := len(symbols) / group
		low, high := rangeAVX512(&symbols[0], groups)
		if high-low < countLimit {
			from = groups * group
			for s := low; s <= high; s += countWidth {
				var n [countWidth]int
				countAVX512(&n, &symbols[0], groups, s)
				for i, k := range n[:min(countWidth, high-s+1)] {
					hist[s+i] += uint32(k)
				}
			}
		}
	}
	// Neighbours are often equal, and an addition has to wait for the one before
	// it to the same place: four tables take turns.
	rest := symbols[from:]
	if len(rest) < 1024 {
		for _, s := range rest {
			hist[s]++
		}
		return
	}
	var h [4][256]uint32
	for ; len(rest) >= 4; rest = rest[4:] {
		h[0][rest[0]]++
		h[1][rest[1]]++
		h[2][rest[2]]++
		h[3][rest[3]]++
	}
	for _, s := range rest {
		hist[s]++
	}
	for s := range hist {
		hist[s] += h[0][s] + h[1][s] + h[2][s] + h[3][s]
	}
}

const (
	// countWidth is how many symbols countAVX512 counts at once.
	countWidth = 8
	// countLimit is the range of symbols from which the tables are faster.
	countLimit = 64
)
