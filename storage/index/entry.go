package index

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// Entry is what the index knows of a part.
type Entry struct {
	// Scope is a number that Scope gave out.
	Scope    uint16
	ID       part.ID
	Quality  uint8
	Location segment.Location
	// Checksum of the descriptor.
	Checksum uint64
}

// Keys, big-endian so that they ascend with the sequence:
//
//	'm'                    meta: format u8, id of the store 16 bytes
//	's' number u16         scope: namespace 32 bytes, tenant 32 bytes
//	'e' sequence u64, page u32   a part
//	'z' sequence u64       the segment is settled
const (
	metaKey     = "m"
	scopePrefix = 's'
	entryPrefix = 'e'
	donePrefix  = 'z'

	format     = 1
	entrySize  = 2 + part.IDSize + 1 + 8 + segment.LocationSize
	entryKeyed = 1 + 8 + 4
)

func scopeKey(number uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{scopePrefix}, number)
}

func entryKey(l segment.Location) []byte {
	return binary.BigEndian.AppendUint32(segmentKey(entryPrefix, l.Segment), l.Page)
}

func segmentKey(prefix byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, entryKeyed), prefix), sequence)
}

// appendTo appends the value: scope u16, part id, quality u8, checksum u64,
// location; little-endian.
func (e *Entry) appendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, e.Scope)
	b = e.ID.AppendTo(b)
	b = append(b, e.Quality)
	b = binary.LittleEndian.AppendUint64(b, e.Checksum)
	return e.Location.AppendTo(b)
}

// decodeEntry reads key and value, which must agree.
func decodeEntry(key, value []byte) (Entry, error) {
	var e Entry
	if len(key) != entryKeyed || len(value) != entrySize {
		return e, corrupt("an entry of %d and %d bytes", len(key), len(value))
	}
	e.Scope = binary.LittleEndian.Uint16(value)
	e.ID, _ = part.DecodeID(value[2 : 2+part.IDSize])
	rest := value[2+part.IDSize:]
	e.Quality, e.Checksum = rest[0], binary.LittleEndian.Uint64(rest[1:])
	e.Location, _ = segment.DecodeLocation(rest[9:])
	if string(entryKey(e.Location)) != string(key) {
		return e, corrupt("an entry under another key")
	}
	return e, nil
}

func decodeScope(key, value []byte) (uint16, storage.Scope, error) {
	if len(key) != 3 || len(value) != 64 {
		return 0, storage.Scope{}, corrupt("a scope of %d and %d bytes", len(key), len(value))
	}
	return binary.BigEndian.Uint16(key[1:]), storage.Scope{Namespace: [32]byte(value[:32]), Tenant: [32]byte(value[32:])}, nil
}

func corrupt(format string, args ...any) error {
	return fault.New(fault.Corrupt, "index", format, args...)
}
