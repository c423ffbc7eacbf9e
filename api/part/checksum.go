package part

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/minio/crc64nvme"
)

// Checksums appends the checksum of each of the layers that data consists of
// to dst. data must divide evenly.
func Checksums(dst []uint64, data []byte, layers int) ([]uint64, error) {
	if layers < 1 || layers > MaxRawTable {
		return dst, invalid("layers", "out of range").With(layers, "1..1024")
	}
	if len(data) == 0 || len(data)%layers != 0 {
		return dst, invalid("raw_length", "the bytes do not divide into layers").With(len(data), layers)
	}
	per := len(data) / layers
	for i := range layers {
		dst = append(dst, crc64nvme.Checksum(data[i*per:(i+1)*per]))
	}
	return dst, nil
}

// Seal validates d and sets its Checksum. It allocates the encoding to sum
// it; the hot path has a buffer and uses AppendSealed.
func Seal(d *Descriptor) error {
	_, err := AppendSealed(make([]byte, 0, d.Size()), d)
	return err
}

// AppendSealed validates d, sets its Checksum and appends its encoding to b.
// On an error b is returned as it was.
func AppendSealed(b []byte, d *Descriptor) ([]byte, error) {
	if err := d.validate(); err != nil {
		return b, err
	}
	at := len(b)
	b = d.appendCovered(b)
	d.Checksum = crc64nvme.Checksum(b[at:])
	return binary.LittleEndian.AppendUint64(b, d.Checksum), nil
}

// VerifySeal says whether Checksum fits the fields; else Corrupt. Decode does
// the same for an encoding.
func VerifySeal(d *Descriptor) error {
	c := *d
	if err := Seal(&c); err != nil {
		return err
	}
	if c.Checksum != d.Checksum {
		return fault.New(fault.Corrupt, "part.checksum", "the descriptor does not match its checksum")
	}
	return nil
}

// Verify checks all of a part's stored bytes against the table. Other bytes are
// Corrupt, naming the first layer of a raw part that differs; a part that is not
// Known is a Miss. It trusts the table: d comes from Decode, or was sealed here.
func Verify(d *Descriptor, data []byte) error {
	if !d.Coded() && !d.Bundled() {
		return VerifyRange(d, data, 0, len(d.Table))
	}
	if len(data) != int(d.StoredLength) {
		return fault.New(fault.Corrupt, "part.stored_length", "wrong number of bytes").With(len(data), d.StoredLength)
	}
	if crc64nvme.Checksum(data) != d.Table[CodecBytes] {
		return fault.New(fault.Corrupt, "part.table", "part %v does not match its checksum", d.ID)
	}
	return nil
}

// VerifyRange checks the bytes of layers [first, first+layers) of a raw part,
// which data holds and nothing else; a part that is not raw is a Miss.
func VerifyRange(d *Descriptor, data []byte, first, layers int) error {
	if !d.Raw() {
		return fault.New(fault.Miss, "part.encoding", "unknown encoding, or not raw").With(d.Encoding, EncodingRaw)
	}
	n := len(d.Table)
	if first < 0 || layers < 1 || first > n-layers {
		return invalid("layers", "layers %d to %d are not in the part", first, first+layers-1).With(nil, n)
	}
	per := int(d.RawLength) / n
	if len(data) != per*layers {
		return fault.New(fault.Corrupt, "part.raw_length", "wrong number of bytes").With(len(data), per*layers)
	}
	for i := range layers {
		if crc64nvme.Checksum(data[i*per:(i+1)*per]) != d.Table[first+i] {
			return fault.New(fault.Corrupt, "part.table", "layer %d of part %v does not match its checksum", first+i, d.ID)
		}
	}
	return nil
}
