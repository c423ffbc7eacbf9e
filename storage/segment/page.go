package segment

import (
	"encoding/binary"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/minio/crc64nvme"
)

// FormatVersion of every structure on the disk.
const FormatVersion = 1

// The first eight bytes of each structure.
const (
	magicStore   = "LRDRSTOR"
	magicSegment = "LRDRSEGM"
	magicGroup   = "LRDRGRUP"
	magicTrailer = "LRDRSEAL"
)

// Offsets that all structures have in common.
const (
	atFormat  = 8
	atLength  = 12
	atStore   = 16
	atSegment = 32
	// sumBytes is the length of the checksum, the last thing in a structure.
	sumBytes = 8
)

var le = binary.LittleEndian

func corrupt(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, "segment."+field, format, args...)
}

// begin clears b, a structure of whole pages, and writes what is common.
func begin(b []byte, magic string, store ID, sequence uint64) {
	clear(b)
	copy(b, magic)
	le.PutUint32(b[atFormat:], FormatVersion)
	le.PutUint32(b[atLength:], uint32(len(b)))
	copy(b[atStore:], store[:])
	le.PutUint64(b[atSegment:], sequence)
}

// finish writes the checksum of everything before it.
func finish(b []byte) {
	at := len(b) - sumBytes
	le.PutUint64(b[at:], crc64nvme.Checksum(b[:at]))
}

// check reads what is common, of exactly b. The store's id and the sequence are
// the caller's to compare.
func check(b []byte, magic, what string) error {
	switch at := len(b) - sumBytes; {
	case string(b[:8]) != magic:
		return corrupt(what, "there is none")
	case le.Uint64(b[at:]) != crc64nvme.Checksum(b[:at]):
		return corrupt(what+".checksum", "it does not match its checksum")
	case le.Uint32(b[atFormat:]) != FormatVersion:
		return corrupt(what+".format", "unknown format version").With(le.Uint32(b[atFormat:]), FormatVersion)
	case le.Uint32(b[atLength:]) != uint32(len(b)):
		return corrupt(what+".length", "wrong length").With(le.Uint32(b[atLength:]), len(b))
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// superblock is the content of the file STORE.
type superblock struct {
	id      ID
	created time.Time
	// reserved: sequences below it may have been used.
	reserved uint64
}

const (
	// storeBytes: the file holds the same page twice, so that one of them may be
	// damaged.
	storeBytes    = 2 * PageBytes
	atCreated     = 40
	atReservation = 32
)

func (s superblock) encode() []byte {
	b := make([]byte, storeBytes)
	page := b[:PageBytes]
	begin(page, magicStore, s.id, s.reserved)
	le.PutUint64(page[atCreated:], uint64(s.created.UnixNano()))
	finish(page)
	copy(b[PageBytes:], page)
	return b
}

// decodeSuperblock reads the file STORE. sound says whether both copies are.
func decodeSuperblock(b []byte) (s superblock, sound bool, err error) {
	if len(b) != storeBytes {
		return s, false, storeInvalid("this is not a store of segments: wrong length").With(len(b), storeBytes)
	}
	first, firstErr := decodeStorePage(b[:PageBytes])
	second, secondErr := decodeStorePage(b[PageBytes:])
	switch {
	case firstErr == nil:
		return first, secondErr == nil && first == second, nil
	case secondErr == nil:
		return second, false, nil
	}
	return s, false, firstErr
}

func storeInvalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "segment.store", format, args...)
}

func decodeStorePage(b []byte) (s superblock, err error) {
	at := len(b) - sumBytes
	switch {
	case string(b[:8]) != magicStore:
		return s, storeInvalid("this is not a store of segments")
	case le.Uint64(b[at:]) != crc64nvme.Checksum(b[:at]):
		return s, corrupt("store", "the superblock does not match its checksum")
	case le.Uint32(b[atFormat:]) != FormatVersion:
		// The checksum is sound: this is what was written.
		return s, storeInvalid("the store has a format that this version does not know").With(le.Uint32(b[atFormat:]), FormatVersion)
	case le.Uint32(b[atLength:]) != PageBytes || !zero(b[atCreated+8:at]):
		return s, corrupt("store", "the superblock has fields that its format does not know")
	}
	return superblock{
		id: ID(b[atStore:]), reserved: le.Uint64(b[atReservation:]),
		created: time.Unix(0, int64(le.Uint64(b[atCreated:]))),
	}, nil
}
