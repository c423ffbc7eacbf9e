package arena

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
	"github.com/minio/crc64nvme"
)

const (
	// maxBudget keeps page numbers and record numbers below 2^31.
	maxBudget      = 1 << 42
	sidecarMagic   = "LARDSIDE"
	sidecarVersion = 1
	headerBytes    = PageBytes
	// genBatch generations are reserved at a time, so that the header is
	// written rarely.
	genBatch = 1 << 16
)

// layout is what the sidecar's header fixes.
type layout struct {
	segmentBytes, totalBytes int64
	records                  uint32 // index 0 included
}

func (l layout) segments() int {
	return int((l.totalBytes + l.segmentBytes - 1) / l.segmentBytes)
}

func (l layout) sidecarBytes() int64 { return headerBytes + recordBytes*int64(l.records) }

// newLayout dimensions the sidecar for the smallest slots and as many
// extensions; the memfd is sparse and costs what is used.
func newLayout(segmentBytes, slotBytes int64) layout {
	unit := max(segmentBytes/4096, minSegmentBytes)
	total := slotBytes / unit * unit
	return layout{segmentBytes: segmentBytes, totalBytes: total, records: uint32(2*(total/PageBytes) + 1<<14)}
}

// sidecar is the daemon's mirror of all descriptors. Clients never map it.
type sidecar struct {
	mem  []byte
	recs []record
}

func openSidecar(mem []byte, l layout) *sidecar {
	return &sidecar{mem: mem, recs: unsafe.Slice((*record)(unsafe.Pointer(&mem[headerBytes])), l.records)}
}

func (s *sidecar) writeHeader(l layout) {
	b := s.mem[:headerBytes]
	le := binary.LittleEndian
	copy(b, sidecarMagic)
	le.PutUint32(b[8:], sidecarVersion)
	le.PutUint32(b[12:], uint32(l.segments()))
	le.PutUint64(b[16:], uint64(l.segmentBytes))
	le.PutUint64(b[24:], uint64(l.totalBytes))
	le.PutUint64(b[32:], uint64(newGeometry(l.segmentBytes, l.totalBytes).unitPages)*PageBytes)
	le.PutUint64(b[40:], uint64(l.records))
	le.PutUint64(b[48:], crc64nvme.Checksum(b[:48]))
}

// parseHeader checks the first page of a sidecar of the given length. Every
// size is bounded before it is used.
func parseHeader(b []byte, length int64) (layout, error) {
	bad := func(what string, value, limit any) (layout, error) {
		return layout{}, fault.New(fault.Corrupt, "arena.sidecar", "%s", what).With(value, limit)
	}
	le := binary.LittleEndian
	if len(b) < headerBytes {
		return bad("too short", len(b), headerBytes)
	}
	if string(b[:8]) != sidecarMagic {
		return bad("wrong magic", nil, nil)
	}
	if v := le.Uint32(b[8:]); v != sidecarVersion {
		return bad("unknown version", v, sidecarVersion)
	}
	if le.Uint64(b[48:]) != crc64nvme.Checksum(b[:48]) {
		return bad("the header does not match its checksum", nil, nil)
	}
	seg, total, records := le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[40:])
	if seg < minSegmentBytes || seg > 1<<40 || seg&(seg-1) != 0 {
		return bad("segment size", seg, "a power of two from 65536 to 2^40")
	}
	if total == 0 || total > maxBudget || total%minSegmentBytes != 0 || (total+seg-1)/seg > MaxSegments {
		return bad("size of all segments", total, "at most 240 segments")
	}
	l := layout{segmentBytes: int64(seg), totalBytes: int64(total), records: uint32(records)}
	if want := newLayout(l.segmentBytes, l.totalBytes); records != uint64(want.records) || want.totalBytes != l.totalBytes {
		return bad("number of records", records, want.records)
	}
	if l.sidecarBytes() != length {
		return bad("wrong length", length, l.sidecarBytes())
	}
	if u := uint64(newGeometry(l.segmentBytes, l.totalBytes).unitPages) * PageBytes; le.Uint64(b[32:]) != u {
		return bad("unit size", le.Uint64(b[32:]), u)
	}
	return l, nil
}

// Counters that a successor needs, outside the header's checksum because they
// change: each with its complement, stored as one word.
const (
	genLimitAt = 64
	highAt     = 72
)

func (s *sidecar) setCounter(at int, v uint32) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.mem[at])), uint64(v)|uint64(^v)<<32)
}

func parseCounter(b []byte, at int) (uint32, error) {
	v := binary.LittleEndian.Uint64(b[at:])
	if uint32(v) != ^uint32(v>>32) {
		return 0, fault.New(fault.Corrupt, "arena.sidecar", "a counter of the header is damaged").With(at, nil)
	}
	return uint32(v), nil
}

// values is how many values a part's extensions hold.
func (r *record) values() int {
	n := max(int(r.table)-1, 0)
	if r.flags&flagBasis != 0 {
		n++
	}
	return n
}

func extsFor(values int) int { return (values + extValues - 1) / extValues }

// appendTable appends r's checksum table. Here and below the chain of
// extensions was written by this process, or checked at adoption.
func (s *sidecar) appendTable(dst []uint64, r *record) []uint64 {
	if r.table == 0 {
		return dst
	}
	dst = append(dst, r.sum)
	skip := 0
	if r.flags&flagBasis != 0 {
		skip = 1
	}
	s.eachValue(r, func(i int, v uint64) {
		if i >= skip {
			dst = append(dst, v)
		}
	})
	return dst
}

func (s *sidecar) basis(r *record) uint64 {
	if r.flags&flagBasis == 0 {
		return 0
	}
	return *s.recs[r.ext].asExt().value(0)
}

func (s *sidecar) eachValue(r *record, f func(i int, v uint64)) {
	n := r.values()
	for i, at := 0, r.ext; i < n; {
		e := s.recs[at].asExt()
		for j := 0; j < extValues && i < n; j++ {
			f(i, *e.value(j))
			i++
		}
		at = e.next
	}
}

// tableEqual compares r's table with sums.
func (s *sidecar) tableEqual(r *record, sums []uint64) bool {
	if int(r.table) != len(sums) || len(sums) == 0 || r.sum != sums[0] {
		return false
	}
	skip := 0
	if r.flags&flagBasis != 0 {
		skip = 1
	}
	equal := true
	s.eachValue(r, func(i int, v uint64) {
		if i >= skip && v != sums[i-skip+1] {
			equal = false
		}
	})
	return equal
}
