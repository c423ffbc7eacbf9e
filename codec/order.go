package codec

import (
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// order is how the symbols of a unit are arranged for the entropy coder: class
// after class, in a class channel after channel, in a channel token after token;
// each class filled up to whole steps.
type order struct {
	classes rows.ClassMap
	runs    []rans.Run
	symbols int
}

// arrange computes the order of a unit of tokens, whose channels have these
// classes.
func (o *order) arrange(classOf []uint8, tables []rans.Table, tokens int) {
	o.classes.Build(classOf, len(tables))
	o.runs = o.runs[:0]
	for c := range tables {
		if n := o.classes.Channels(c) * tokens; n > 0 {
			o.runs = append(o.runs, rans.Run{Table: &tables[c], Steps: (n + rans.Lanes - 1) / rans.Lanes})
		}
	}
	o.symbols = o.classes.Size(tokens)
}

// fill fills up the classes of arranged symbols.
func (o *order) fill(arranged []byte, tables []rans.Table, tokens int) {
	at := 0
	for c := range tables {
		if at += o.classes.Channels(c) * tokens; at%rans.Lanes == 0 {
			continue
		}
		for filler := likeliest(&tables[c]); at%rans.Lanes != 0; at++ {
			arranged[at] = filler
		}
	}
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
