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
// classes, each with a table.
func (o *order) arrange(classOf []uint8, classes int, table func(class int) *rans.Table, tokens int) {
	o.classes.Build(classOf, classes)
	o.runs = o.runs[:0]
	for c := range classes {
		if n := o.classes.Channels(c) * tokens; n > 0 {
			o.runs = append(o.runs, rans.Run{Table: table(c), Steps: (n + rans.Lanes - 1) / rans.Lanes})
		}
	}
	o.symbols = o.classes.Size(tokens)
}
