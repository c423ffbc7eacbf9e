package segment

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
)

// LocationSize is the length of an encoded Location.
const LocationSize = 24

// AppendTo appends the encoding for an index: little-endian, in the order
// segment u64, group u32, page u32, length u32, header pages u16, entry u16.
func (l Location) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, l.Segment)
	b = binary.LittleEndian.AppendUint32(b, l.Group)
	b = binary.LittleEndian.AppendUint32(b, l.Page)
	b = binary.LittleEndian.AppendUint32(b, l.Length)
	b = binary.LittleEndian.AppendUint16(b, l.HeaderPages)
	return binary.LittleEndian.AppendUint16(b, l.Entry)
}

// DecodeLocation reads an encoding of exactly 24 bytes. Whether it is a place,
// Read finds out.
func DecodeLocation(b []byte) (Location, error) {
	if len(b) != LocationSize {
		return Location{}, fault.New(fault.Invalid, "segment.location", "wrong length").With(len(b), LocationSize)
	}
	return Location{
		Segment:     binary.LittleEndian.Uint64(b),
		Group:       binary.LittleEndian.Uint32(b[8:]),
		Page:        binary.LittleEndian.Uint32(b[12:]),
		Length:      binary.LittleEndian.Uint32(b[16:]),
		HeaderPages: binary.LittleEndian.Uint16(b[20:]),
		Entry:       binary.LittleEndian.Uint16(b[22:]),
	}, nil
}

// pagesOf is the number of pages that n bytes need.
func pagesOf(n int64) int64 { return (n + PageBytes - 1) / PageBytes }
