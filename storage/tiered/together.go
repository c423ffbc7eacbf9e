package tiered

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Gatherer is a tier in which some parts of a chunk lie as one, so that they are
// put and got together.
type Gatherer interface {
	// Together says how many of the parts, which is not an empty list, belong
	// together, from the first on.
	Together(parts storage.Layout) int
	// GetParts is a Get of each part whose dst is not nil. An error is that of the
	// first that failed; what came before it is of no use then.
	GetParts(ctx context.Context, ids []part.ID, ds []*part.Descriptor, dsts [][]byte) error
}

func together(t storage.Tier, parts storage.Layout) int {
	if g, ok := t.(Gatherer); ok {
		return g.Together(parts)
	}
	return 1
}

// filling is the parts that are brought together: each has its memory before the
// first of them is read.
type filling struct {
	c    *Chunk
	from Gatherer
	to   Filler
	list storage.Layout
	ids  []part.ID
	ds   []*part.Descriptor
	dsts [][]byte
	outs []storage.Outcome
}

func (c *Chunk) fillTogether(ctx context.Context, to Filler, list storage.Layout) (bytes int64, err error) {
	n := len(list)
	f := &filling{c, c.From.(Gatherer), to, list, make([]part.ID, n), make([]*part.Descriptor, n), make([][]byte, n), make([]storage.Outcome, n)}
	for i := range list {
		f.ids[i] = c.id(&list[i])
	}
	err = f.next(ctx, 0)
	for i, out := range f.outs {
		if out == storage.Kept || out == storage.Published {
			bytes += int64(list[i].RawLength)
		}
	}
	return bytes, err
}

// next takes memory for part i and those behind it, and gets all when there are
// no more. One that is there already has none.
func (f *filling) next(ctx context.Context, i int) error {
	if i == len(f.list) {
		return f.from.GetParts(ctx, f.ids, f.ds, f.dsts)
	}
	called := false
	out, err := f.to.Fill(ctx, f.ids[i], func(d *part.Descriptor, dst []byte) (int, error) {
		called = true
		f.ds[i], f.dsts[i] = d, dst
		return len(dst), f.next(ctx, i+1)
	})
	f.outs[i] = out
	if err != nil || called {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "copy", "stopped")
	}
	return f.next(ctx, i+1)
}
