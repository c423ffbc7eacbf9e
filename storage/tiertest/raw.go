package tiertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

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

// Right says whether the tier has the part, by its bytes. Whatever is neither
// right nor a miss is an error; one of no kind: other bytes came without one.
func Right(t storage.Tier, d *part.Descriptor, b []byte) (bool, error) {
	var got part.Descriptor
	buf := make([]byte, len(b))
	switch n, err := t.Get(context.Background(), d.ID, &got, buf); {
	case errors.Is(err, fault.Miss):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("chunk %d, part %+v: %w", d.Ordinal, d.ID, err)
	case n != len(b) || !bytes.Equal(buf, b) || got.Checksum != d.Checksum:
		return false, fmt.Errorf("WRONG BYTES: chunk %d, part %+v", d.Ordinal, d.ID)
	}
	return true, nil
}

// Count says how many of so many parts the tier has. One that is neither right
// nor a miss fails the test.
func Count(tb TB, t storage.Tier, parts int, want func(i int) (*part.Descriptor, []byte)) (there int) {
	tb.Helper()
	for i := range parts {
		d, b := want(i)
		right, err := Right(t, d, b)
		if err != nil {
			tb.Fatalf("%v", err)
		}
		if right {
			there++
		}
	}
	return there
}
