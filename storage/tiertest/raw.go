package tiertest

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Raw makes the descriptor of part p of a chunk of 256 tokens from its bytes.
// Of d it keeps the chunk's key and parent, ordinal and quality.
func Raw(d part.Descriptor, p storage.PartSpec, b []byte) (*part.Descriptor, error) {
	d.ID.Group, d.ID.Span, d.ID.HeadGroup, d.Tokens = p.Group, p.Span, p.HeadGroup, 256
	d.Encoding, d.EncodingVersion, d.RawLength, d.StoredLength = part.EncodingRaw, part.RawVersion, uint32(len(b)), uint32(len(b))
	var err error
	if d.Table, err = part.Checksums(nil, b, int(p.Layers)); err == nil {
		err = part.Seal(&d)
	}
	return &d, err
}

// Count says how many of so many parts the tier has. One that is neither right
// nor a miss fails the test.
func Count(tb TB, t storage.Tier, parts int, want func(i int) (*part.Descriptor, []byte)) (there int) {
	tb.Helper()
	for i := range parts {
		d, b := want(i)
		var got part.Descriptor
		buf := make([]byte, len(b))
		_, err := t.Get(context.Background(), d.ID, &got, buf)
		switch {
		case err == nil && string(buf) == string(b) && got.Checksum == d.Checksum:
			there++
		case !errors.Is(err, fault.Miss):
			tb.Fatalf("chunk %d, part %d: %v, or other bytes", d.Ordinal, i, err)
		}
	}
	return there
}
