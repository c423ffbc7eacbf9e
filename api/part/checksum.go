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

// Seal validates d and sets its Checksum.
func Seal(d *Descriptor) error {
	if err := d.validate(); err != nil {
		return err
	}
	d.Checksum = d.sum()
	return nil
}

// VerifySeal says whether Checksum fits the fields; else Corrupt. Decode does
// the same.
func VerifySeal(d *Descriptor) error {
	if err := d.validate(); err != nil {
		return err
	}
	if d.Checksum != d.sum() {
		return fault.New(fault.Corrupt, "part.checksum", "the descriptor does not match its checksum")
	}
	return nil
}

// sum is CRC-64/NVMe over the encoding without its last field. The table goes
// through a small buffer that stays on the stack.
func (d *Descriptor) sum() uint64 {
	var buf [HeaderSize + 8*52]byte
	b := d.appendHeader(buf[:0])
	var crc uint64
	for _, c := range d.Table {
		if len(b)+8 > len(buf) {
			crc = crc64nvme.Update(crc, b)
			b = buf[:0]
		}
		b = binary.LittleEndian.AppendUint64(b, c)
	}
	return crc64nvme.Update(crc, b)
}

// Verify checks all of a raw part's bytes against the table. Other bytes are
// Corrupt, naming the first layer that differs; a part that is not Known is a
// Miss. It trusts the table: d comes from Decode, or was sealed here.
func Verify(d *Descriptor, data []byte) error {
	return VerifyRange(d, data, 0, len(d.Table))
}

// VerifyRange checks the bytes of layers [first, first+layers), which data
// holds and nothing else.
func VerifyRange(d *Descriptor, data []byte, first, layers int) error {
	if !d.Known() {
		return fault.New(fault.Miss, "part.encoding", "unknown encoding").With(d.Encoding, EncodingRaw)
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
