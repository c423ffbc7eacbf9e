package codec

import "github.com/larderkv/larder/codec/rans"

// order is how the symbols of a unit are arranged for the entropy coder: class
// after class, in a class channel after channel, in a channel token after token;
// each class filled up to whole steps.
type order struct {
	classOf  []uint8
	channels []int32 // sorted by class, then by number
	first    [maxClasses + 1]int
	runs     []rans.Run
	symbols  int
}

// arrange computes the order of a unit of tokens, from o.classOf.
func (o *order) arrange(tables []rans.Table, tokens int) {
	o.channels, o.runs, o.symbols = o.channels[:0], o.runs[:0], 0
	for c := range tables {
		o.first[c] = len(o.channels)
		for ch, k := range o.classOf {
			if int(k) == c {
				o.channels = append(o.channels, int32(ch))
			}
		}
		if n := (len(o.channels) - o.first[c]) * tokens; n > 0 {
			steps := (n + rans.Lanes - 1) / rans.Lanes
			o.runs = append(o.runs, rans.Run{Table: &tables[c], Steps: steps})
			o.symbols += steps * rans.Lanes
		}
	}
	o.first[len(tables)] = len(o.channels)
}

// gather returns the symbols, which lie token after token, in this order, in
// dst's memory.
func (o *order) gather(dst, symbols []byte, tables []rans.Table, tokens int) []byte {
	resize(&dst, o.symbols)
	dims, at := len(o.classOf), 0
	for c := range tables {
		channels := o.channels[o.first[c]:o.first[c+1]]
		if len(channels) == 0 {
			continue
		}
		for _, ch := range channels {
			for t := range tokens {
				dst[at] = symbols[t*dims+int(ch)]
				at++
			}
		}
		for filler := likeliest(&tables[c]); at%rans.Lanes != 0; at++ {
			dst[at] = filler
		}
	}
	return dst
}

// likeliest is the first of the symbols that cost least.
func likeliest(t *rans.Table) byte {
	best, most := 0, 0
	for s := range 256 {
		if f := t.Freq(byte(s)); f > most {
			best, most = s, f
		}
	}
	return byte(best)
}
