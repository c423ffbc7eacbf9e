package tiered

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Batcher is a tier that takes parts of one chunk at once, so that they lie
// together and are written together.
type Batcher interface {
	// PutParts is a Put of each part. Outcomes are in the order of the list, and
	// Rejected for what was not kept; the error is the first one's.
	PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error)
}

// PutParts is that of a Batcher, for any tier.
func PutParts(ctx context.Context, t storage.Tier, list []storage.PartBytes) ([]storage.Outcome, error) {
	if b, ok := t.(Batcher); ok {
		return b.PutParts(ctx, list)
	}
	outs := rejected(len(list))
	for i := range list {
		out, err := t.Put(ctx, list[i].Part, list[i].Bytes)
		if err != nil {
			return outs, err
		}
		outs[i] = out
	}
	return outs, nil
}

// batchBytes of parts are put at once; a part of more goes by itself, and so do
// parts that belong together. It bounds the memory of a copy.
const batchBytes = 8 << 20

// align keeps parts in a batch on pages, from where a device can take them.
const align = 4096

// aligned is what a part takes of a batch.
func aligned(p *storage.PartSpec) int { return (int(p.RawLength) + align - 1) &^ (align - 1) }

// put brings all parts to a tier that lends no memory, in batches. It returns
// the bytes that were kept.
func (c *Chunk) put(ctx context.Context) (bytes int64, err error) {
	for first := 0; first < len(c.Layout); {
		n, total := c.joined(first)
		for first+n < len(c.Layout) {
			m, more := c.joined(first + n)
			if total+more > batchBytes {
				break
			}
			n, total = n+m, total+more
		}
		kept, err := c.putBatch(ctx, c.Layout[first:first+n], make([]byte, total))
		bytes += kept
		if err != nil {
			return bytes, err
		}
		first += n
	}
	return bytes, nil
}

// joined is how many parts from first on belong together, and what they take of
// a batch.
func (c *Chunk) joined(first int) (n, bytes int) {
	n = together(c.To, c.Layout[first:])
	for i := range n {
		bytes += aligned(&c.Layout[first+i])
	}
	return n, bytes
}

func (c *Chunk) putBatch(ctx context.Context, parts storage.Layout, buf []byte) (bytes int64, err error) {
	list := make([]storage.PartBytes, len(parts))
	for i := range parts {
		if err := ctx.Err(); err != nil {
			return 0, fault.Wrap(fault.Unavailable, err, "copy", "stopped")
		}
		length := int(parts[i].RawLength)
		d := &part.Descriptor{}
		n, err := c.From.Get(ctx, c.id(&parts[i]), d, buf[:length:length])
		if err != nil {
			return 0, err
		}
		list[i] = storage.PartBytes{Part: d, Bytes: buf[:n:n]}
		buf = buf[aligned(&parts[i]):]
	}
	outs, err := PutParts(ctx, c.To, list)
	for i, out := range outs {
		if out == storage.Kept || out == storage.Published {
			bytes += int64(parts[i].RawLength)
		}
	}
	return bytes, err
}
