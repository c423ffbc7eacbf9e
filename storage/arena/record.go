package arena

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"github.com/larderkv/larder/api/keys"
	"github.com/minio/crc64nvme"
)

// Kinds of sidecar records. They differ in many bits, so that a damaged kind is
// no other kind.
const (
	kindFree     = 0
	kindPart     = 0xA5C3
	kindKept     = 0x5A3C
	kindGranted  = 0x3C5A
	kindExt      = 0xC3A5
	kindName     = 0x6996
	recordBytes  = 128
	flagUnsummed = 1
	flagBasis    = 2
	extValues    = 13
)

// record is one entry of the sidecar; PROTOCOL.md section 9 has the bytes. The
// layout is the machine's, which is little-endian wherever this builds.
//
// word is written last and read atomically; the rest belongs to the arena's
// lock, or to whoever pinned the chunk (read only).
type record struct {
	word                                      uint32 // kind | parts << 16
	flags, quality, encoding, encodingVersion uint8
	group, span                               uint8
	headGroup                                 uint16
	table, segment                            uint16
	namespace, tenant                         uint16
	page, class, stored, raw, ordinal         uint32
	tokens, zero                              uint16
	ext                                       uint32
	check                                     uint64
	sum                                       uint64
	key, parent                               keys.Key
}

const _ = -(unsafe.Sizeof(record{}) ^ recordBytes) // compiles only if equal

// extRecord is a record of kind extension.
type extRecord struct {
	word        uint32
	next, owner uint32
	zero        uint32
	low         [4]uint64
	check       uint64
	high        [9]uint64
}

const _ = -(unsafe.Sizeof(extRecord{}) ^ recordBytes)

func (e *extRecord) value(i int) *uint64 {
	if i < len(e.low) {
		return &e.low[i]
	}
	return &e.high[i-len(e.low)]
}

func (r *record) asExt() *extRecord { return (*extRecord)(unsafe.Pointer(r)) }

func (r *record) kind() uint16 { return uint16(atomic.LoadUint32(&r.word)) }
func (r *record) parts() int   { return int(atomic.LoadUint32(&r.word) >> 16) }

// id orders the parts of a chunk as namespaces list them.
func (r *record) id() uint32 { return partID(r.group, r.span, r.headGroup) }

func partID(group, span uint8, headGroup uint16) uint32 {
	return uint32(span)<<24 | uint32(group)<<16 | uint32(headGroup)
}

// begin makes the record nothing, so that its fields may change.
func (r *record) begin() { atomic.StoreUint32(&r.word, 0) }

// commit seals the fields and makes the record what it now is. The store of
// the word is last: who finds the kind finds the fields.
func (r *record) commit(index uint32, kind uint16, parts int) {
	r.check = r.sumFor(index, parts)
	atomic.StoreUint32(&r.word, uint32(kind)|uint32(parts)<<16)
}

// become changes the kind alone, which the checksum does not cover.
func (r *record) become(kind uint16) {
	atomic.StoreUint32(&r.word, r.word&^0xFFFF|uint32(kind))
}

func (r *record) clear() {
	atomic.StoreUint32(&r.word, 0)
	r.check = 0
}

// sumFor is the checksum of the record at that index. Index and number of parts
// are mixed in, so that neither a copy elsewhere nor another number fits.
func (r *record) sumFor(index uint32, parts int) uint64 {
	b := unsafe.Slice((*byte)(unsafe.Pointer(r)), recordBytes)
	crc := crc64nvme.Update(crc64nvme.Checksum(b[4:48]), b[56:])
	return crc ^ (uint64(parts)<<32|uint64(index))*0x9E3779B97F4A7C15
}

// sound says whether the record is whole.
func (r *record) sound(index uint32) bool { return r.check == r.sumFor(index, r.parts()) }

// Fields of a granted record.

func (r *record) setGrant(o Owner, deadline int64, clears uint64) {
	binary.LittleEndian.PutUint64(r.key[0:], uint64(o))
	binary.LittleEndian.PutUint64(r.key[8:], uint64(deadline))
	binary.LittleEndian.PutUint64(r.key[16:], clears)
	binary.LittleEndian.PutUint64(r.key[24:], 0)
}

func (r *record) owner() Owner    { return Owner(binary.LittleEndian.Uint64(r.key[0:])) }
func (r *record) deadline() int64 { return int64(binary.LittleEndian.Uint64(r.key[8:])) }
func (r *record) clears() uint64  { return binary.LittleEndian.Uint64(r.key[16:]) }
