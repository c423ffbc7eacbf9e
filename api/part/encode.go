package part

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/minio/crc64nvme"
)

const (
	// FormatVersion is the first byte of every encoding.
	FormatVersion = 1
	// HeaderSize is the length of the fields before the table.
	HeaderSize = 96
	// MinSize and MaxSize bound an encoding.
	MinSize = HeaderSize + 8 + 8
	MaxSize = HeaderSize + 8*MaxTable + 8
)

// Size returns the length of the encoding.
func (d *Descriptor) Size() int { return HeaderSize + 8*len(d.Table) + 8 }

// AppendTo appends the canonical encoding of a sealed descriptor.
func (d *Descriptor) AppendTo(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(d.appendCovered(b), d.Checksum)
}

// appendCovered appends what the checksum covers: everything before it.
func (d *Descriptor) appendCovered(b []byte) []byte {
	b = append(b, FormatVersion, d.Encoding, d.EncodingVersion, d.Quality)
	b = d.ID.AppendTo(b)
	b = append(b, d.Parent[:]...)
	b = binary.LittleEndian.AppendUint32(b, d.Ordinal)
	b = binary.LittleEndian.AppendUint16(b, d.Tokens)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(d.Table)))
	b = binary.LittleEndian.AppendUint32(b, d.StoredLength)
	b = binary.LittleEndian.AppendUint32(b, d.RawLength)
	b = binary.LittleEndian.AppendUint64(b, d.Basis)
	for _, c := range d.Table {
		b = binary.LittleEndian.AppendUint64(b, c)
	}
	return b
}

// Decode reads a canonical encoding of exactly len(b) bytes into d, reusing
// d.Table's memory. A wrong checksum is Corrupt; everything else that is wrong
// is Invalid. Encodings that are not Known decode, so that they can be
// carried. On an error d is as it was.
func Decode(d *Descriptor, b []byte) error {
	if len(b) < MinSize || len(b) > MaxSize {
		return invalid("descriptor", "wrong length").With(len(b), "112..32872")
	}
	if b[0] != FormatVersion {
		return invalid("format", "unknown format version").With(b[0], FormatVersion)
	}
	n := int(binary.LittleEndian.Uint16(b[78:]))
	if len(b) != HeaderSize+8*n+8 {
		return invalid("descriptor", "the length does not fit a table of %d", n).With(len(b), HeaderSize+8*n+8)
	}
	end := len(b) - 8
	sum := binary.LittleEndian.Uint64(b[end:])
	if got := crc64nvme.Checksum(b[:end]); got != sum {
		return fault.New(fault.Corrupt, "part.checksum", "the descriptor does not match its checksum")
	}
	out := Descriptor{
		ID: ID{
			Chunk: keys.Key(b[4:36]), Group: b[36], Span: b[37],
			HeadGroup: binary.LittleEndian.Uint16(b[38:]),
		},
		Parent:          keys.Key(b[40:72]),
		Ordinal:         binary.LittleEndian.Uint32(b[72:]),
		Tokens:          binary.LittleEndian.Uint16(b[76:]),
		Encoding:        b[1],
		EncodingVersion: b[2],
		Quality:         b[3],
		StoredLength:    binary.LittleEndian.Uint32(b[80:]),
		RawLength:       binary.LittleEndian.Uint32(b[84:]),
		Basis:           binary.LittleEndian.Uint64(b[88:]),
		Checksum:        sum,
	}
	// The table is read after the checks, which need its length only.
	table := d.Table[:0]
	if cap(table) < n {
		table = make([]uint64, 0, n)
	}
	out.Table = table[:n]
	if err := out.validate(); err != nil {
		return err
	}
	for i := range out.Table {
		out.Table[i] = binary.LittleEndian.Uint64(b[HeaderSize+8*i:])
	}
	*d = out
	return nil
}
