package segment_test

import (
	"encoding/binary"

	"github.com/minio/crc64nvme"
)

// reseal makes the checksum of a structure of n bytes at the beginning of b
// right again.
func reseal(b []byte, n int) []byte {
	binary.LittleEndian.PutUint64(b[n-8:n], crc64nvme.Checksum(b[:n-8]))
	return b
}
