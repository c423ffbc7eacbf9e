package part

import (
	"encoding/binary"
	"fmt"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
)

// IDSize is the length of an encoded ID.
const IDSize = keys.Size + 4

// ID names a part. It is comparable.
type ID struct {
	Chunk     keys.Key
	Group     uint8
	Span      uint8
	HeadGroup uint16
}

// AppendTo appends the 36 bytes of the encoding.
func (id ID) AppendTo(b []byte) []byte {
	b = append(b, id.Chunk[:]...)
	b = append(b, id.Group, id.Span)
	return binary.LittleEndian.AppendUint16(b, id.HeadGroup)
}

// DecodeID reads an encoding of exactly 36 bytes; every one of them is an ID.
func DecodeID(b []byte) (ID, error) {
	if len(b) != IDSize {
		return ID{}, fault.New(fault.Invalid, "part.id", "wrong length").With(len(b), IDSize)
	}
	return ID{
		Chunk: keys.Key(b[:keys.Size]),
		Group: b[32], Span: b[33],
		HeadGroup: binary.LittleEndian.Uint16(b[34:]),
	}, nil
}

// String returns "key/group/span/head group" for logs.
func (id ID) String() string {
	return fmt.Sprintf("%s/%d/%d/%d", id.Chunk, id.Group, id.Span, id.HeadGroup)
}
