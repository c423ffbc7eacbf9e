package coded

import (
	"encoding/binary"

	"github.com/minio/crc64nvme"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
)

// describe makes d, the descriptor of a raw part, that of its object; only the
// seal is left to do.
func describe(d *part.Descriptor, object []byte, mode Mode) error {
	size, err := codec.HeaderSize(object)
	if err != nil {
		return err
	}
	table := []uint64{
		part.CodecHeader: binary.LittleEndian.Uint64(object[size-8:]),
		part.CodecBytes:  crc64nvme.Checksum(object),
	}
	if mode == Lossless {
		table = append(table, d.Checksum) // part.CodecOrigin
	}
	d.Encoding, d.EncodingVersion, d.StoredLength, d.Table = part.EncodingCodec, part.CodecVersion, uint32(len(object)), table
	return nil
}

// basisNumber is what a descriptor says of a basis.
func basisNumber(id basis.ID) uint64 { return binary.LittleEndian.Uint64(id[:]) }

// basisOf an object, in the same way; 0: it has none.
func basisOf(h *codec.Header) uint64 {
	if h.Basis == nil {
		return 0
	}
	return basisNumber(h.Basis.ID)
}
