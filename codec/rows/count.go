package rows

import "encoding/binary"

// Count adds the symbols' counts to hist. The assembly does logic on the symbols'
// bits, which takes time by their range: where that is wide, tables are faster.
func (o *Ops) Count(hist *[256]uint32, symbols []byte) {
	if o.wide && len(symbols) >= countLeast {
		low, high := rangeAVX512(&symbols[0], len(symbols)/group)
		for _, s := range symbols[len(symbols)/group*group:] {
			low, high = min(low, int(s)), max(high, int(s))
		}
		if high-low < countLimit {
			countRange(hist, symbols, low, min(high, low+countWidth-1))
			if low += countWidth; low <= high {
				countRange(hist, symbols, low, high)
			}
			return
		}
	}
	countTables(hist, symbols)
}

const (
	// countBlock is how many symbols countAVX512 takes at once, and countWidth how
	// many different ones it counts.
	countBlock = 512
	countWidth = 64
	// countLimit is the range of symbols, and countLeast the number, from which
	// the tables and the assembly are faster.
	countLimit = 128
	countLeast = 192
)

// countRange counts the symbols low to high, at most countWidth.
func countRange(hist *[256]uint32, symbols []byte, low, high int) {
	var n [countWidth]uint32
	blocks := len(symbols) / countBlock
	if rest := symbols[blocks*countBlock:]; len(rest) > 0 {
		// The last block is filled up with what is not counted.
		var last [countBlock]byte
		for i := 0; i < countBlock; i += 8 {
			binary.LittleEndian.PutUint64(last[i:], uint64(byte(low+countWidth))*0x0101010101010101)
		}
		copy(last[:], rest)
		countAVX512(&n, &symbols[0], blocks, &last[0], low, (high-low)/8+1)
	} else {
		countAVX512(&n, &symbols[0], blocks, nil, low, (high-low)/8+1)
	}
	for i, k := range n[:high-low+1] {
		hist[low+i] += k
	}
}

// countTables: neighbours are often equal, and an addition has to wait for the one
// before it to the same place: four tables take turns.
func countTables(hist *[256]uint32, symbols []byte) {
	if len(symbols) < 1024 {
		for _, s := range symbols {
			hist[s]++
		}
		return
	}
	var h [4][256]uint32
	rest := symbols
	for ; len(rest) >= 8; rest = rest[8:] {
		v := binary.LittleEndian.Uint64(rest)
		h[0][byte(v)]++
		h[1][byte(v>>8)]++
		h[2][byte(v>>16)]++
		h[3][byte(v>>24)]++
		h[0][byte(v>>32)]++
		h[1][byte(v>>40)]++
		h[2][byte(v>>48)]++
		h[3][byte(v>>56)]++
	}
	for _, s := range rest {
		hist[s]++
	}
	for s := range hist {
		hist[s] += h[0][s] + h[1][s] + h[2][s] + h[3][s]
	}
}
