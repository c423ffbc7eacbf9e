package tiered

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Chunk is what is to be copied from one tier to another of the same scope.
type Chunk struct {
	Scope  storage.Scope
	Key    keys.Key
	Layout storage.Layout
	From   storage.Tier
	To     storage.Tier
	// Quality of the chunk where it is copied from, as far as it is known: what
	// is there already in no worse quality is not copied.
	Quality uint8
}

// Filler is a tier that lends its own memory to what is put, so that a device
// can write straight into it.
type Filler interface {
	// Fill is Put where fill brings the bytes: it gets memory for the part of
	// that id, and sets descriptor and bytes, or says why it cannot; then
	// nothing is kept and its error is returned.
	Fill(ctx context.Context, id part.ID, fill func(d *part.Descriptor, dst []byte) (int, error)) (storage.Outcome, error)
}

// Holder is a tier that knows without a device whether it has a chunk.
type Holder interface {
	// Has says whether the chunk is here, in a quality no worse than worst.
	Has(key keys.Key, worst uint8) bool
}

// there says whether the copy would bring nothing.
func (c *Chunk) there() bool {
	h, ok := c.To.(Holder)
	return ok && h.Has(c.Key, c.Quality)
}

func (c *Chunk) id(p *storage.PartSpec) part.ID {
	return part.ID{Chunk: c.Key, Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup}
}

// copy brings all parts over and returns the bytes. Parts that are there
// already are as good. Miss: they are not there, or are being removed.
func (c *Chunk) copy(ctx context.Context, g *Gate) (bytes int64, err error) {
	leave, err := g.enter(c)
	if err != nil {
		return 0, err
	}
	defer leave()
	if filler, ok := c.To.(Filler); ok {
		return c.fill(ctx, filler)
	}
	return c.put(ctx)
}

// fill brings the parts one by one, or those that belong together, into the memory
// of the tier.
func (c *Chunk) fill(ctx context.Context, to Filler) (bytes int64, err error) {
	for i := 0; i < len(c.Layout); i++ {
		p := &c.Layout[i]
		if err := ctx.Err(); err != nil {
			return bytes, fault.Wrap(fault.Unavailable, err, "copy", "stopped")
		}
		if n := together(c.From, c.Layout[i:]); n > 1 {
			kept, err := c.fillTogether(ctx, to, c.Layout[i:i+n])
			bytes += kept
			if err != nil {
				return bytes, err
			}
			i += n - 1
			continue
		}
		out, err := to.Fill(ctx, c.id(p), func(d *part.Descriptor, dst []byte) (int, error) {
			return c.From.Get(ctx, c.id(p), d, dst)
		})
		if err != nil {
			return bytes, err
		}
		if out == storage.Kept || out == storage.Published {
			bytes += int64(p.RawLength)
		}
	}
	return bytes, nil
}
