package nvme

import (
	"errors"
	"math"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/internal/keyindex"
	"github.com/larderkv/larder/storage/internal/offheap"
	"github.com/larderkv/larder/storage/segment"
)

// directory is the tables of what lies where. The store's mutex guards it.
type directory struct {
	index  *keyindex.Index
	chunks table[chunkRec, *chunkRec]
	parts  table[partRec, *partRec]
	// segments that hold parts, by sequence.
	segments map[uint32]*segmentState
	// isPinned says of a segment whether its class is pinned; pinned are the
	// bytes of parts in those.
	isPinned func(segment uint32) bool
	pinned   int64
}

// keyBytes of a chunk key are kept. They are bytes of a SHA-256, so that equal
// ones are as unlikely as equal keys; and a client that makes keys of its own
// by other means finds its own parts only, which the disk tells apart.
const keyBytes = 16

// chunkRec is a chunk. A key may have one visible chunk and one incomplete for
// each quality.
type chunkRec struct {
	key     [keyBytes]byte
	gen     uint32 // of the record, goes up when it is freed
	first   uint32 // part; of a free record the next free one
	scope   uint16
	have    uint16 // parts
	quality uint8
	state   chunkState
	// lane is the affinity of the prompt, so that its chunks lie together.
	lane uint8
	// uses since it was written, up to 255.
	uses uint8
}

type chunkState uint8

const (
	chunkFree chunkState = iota
	// chunkLoaded: found at start; what is complete shows when its namespace
	// is registered. In the index.
	chunkLoaded
	// chunkPending lacks parts. Not in the index.
	chunkPending
	// chunkVisible is complete. In the index.
	chunkVisible
)

// partRec is a part of a chunk.
type partRec struct {
	checksum    uint64
	segment     uint32
	group, page uint32
	length      uint32
	headerPages uint16
	entry       uint16
	id          uint32
	chunk       uint32
	next        uint32 // in the chunk, ascending by id; of a free record the next free one
	after       uint32 // in the segment
	before      uint32
}

type segmentState struct {
	// first of its parts, and how many, and how many of those are incomplete.
	first          uint32
	parts, pending int
	live           int64
	// sealedAt is the next put's number when it was first seen sealed.
	sealedAt uint64
	sealed   bool
	settled  bool
	// pinned: eviction does not take it.
	pinned bool
}

func idOf(id part.ID) uint32 {
	return uint32(id.Group)<<24 | uint32(id.Span)<<16 | uint32(id.HeadGroup)
}

func (p *partRec) partID(key keys.Key) part.ID {
	return part.ID{Chunk: key, Group: uint8(p.id >> 24), Span: uint8(p.id >> 16), HeadGroup: uint16(p.id)}
}

func (p *partRec) location() segment.Location {
	return segment.Location{
		Segment: uint64(p.segment), Group: p.group, Page: p.page, Length: p.length, HeaderPages: p.headerPages, Entry: p.entry,
	}
}

func (p *partRec) place(l segment.Location) {
	p.segment, p.group, p.page, p.length, p.headerPages, p.entry = uint32(l.Segment), l.Group, l.Page, l.Length, l.HeaderPages, l.Entry
}

// record is one that a table can chain while it is free.
type record[T any] interface {
	*T
	nextFree() *uint32
}

func (c *chunkRec) nextFree() *uint32 { return &c.first }

func (p *partRec) nextFree() *uint32 { return &p.next }

// table hands out records by number; 0 is none.
type table[T any, P record[T]] struct {
	mem  *offheap.Array[T]
	all  []T
	high uint32
	free uint32
	used int
}

func newTable[T any, P record[T]](n int) (t table[T, P], err error) {
	if t.mem, err = offheap.Map[T](n); err == nil {
		t.all, t.high = t.mem.All(), 1
	}
	return t, err
}

// take a record of any content; 0 = there is none left.
func (t *table[T, P]) take() uint32 {
	rec := t.free
	switch {
	case rec != 0:
		t.free = *P(&t.all[rec]).nextFree()
	case int(t.high) < len(t.all):
		rec = t.high
		t.high++
	default:
		return 0
	}
	t.used++
	return rec
}

// give back a record, as v.
func (t *table[T, P]) give(rec uint32, v T) {
	t.all[rec] = v
	*P(&t.all[rec]).nextFree() = t.free
	t.free = rec
	t.used--
}

func (t *table[T, P]) close() error {
	if t.mem == nil {
		return nil
	}
	return t.mem.Close()
}

func newDirectory(maxParts int, isPinned func(segment uint32) bool) (*directory, error) {
	d := &directory{segments: map[uint32]*segmentState{}, isPinned: isPinned}
	var err [3]error
	d.index, err[0] = keyindex.New()
	d.chunks, err[1] = newTable[chunkRec, *chunkRec](maxParts + 1)
	d.parts, err[2] = newTable[partRec, *partRec](maxParts + 1)
	if e := errors.Join(err[:]...); e != nil {
		return nil, errors.Join(fault.Wrap(fault.Full, e, "nvme.max_parts", "no memory for the directory").With(maxParts, nil), d.close())
	}
	return d, nil
}

func (d *directory) close() error {
	err := errors.Join(d.chunks.close(), d.parts.close())
	if d.index != nil {
		err = errors.Join(err, d.index.Close())
	}
	return err
}

// bytes of memory that the tables have touched.
func (d *directory) bytes() int64 {
	return d.index.Bytes() + int64(unsafe.Sizeof(chunkRec{}))*int64(d.chunks.high) + int64(unsafe.Sizeof(partRec{}))*int64(d.parts.high)
}

// lookup finds a chunk for which want says yes; 0 = none.
func (d *directory) lookup(scope uint16, key *keys.Key, want func(*chunkRec) bool) uint32 {
	ix, hash := d.index, d.index.Hash(key[:keyBytes])
	for p := ix.Start(hash); ix.Tab[p].Rec != 0; p = ix.Step(p) {
		if e := ix.Tab[p]; e.Hash == hash {
			c := &d.chunks.all[e.Rec]
			if c.scope == scope && c.key == [keyBytes]byte(key[:]) && want(c) {
				return e.Rec
			}
		}
	}
	return 0
}

func isVisible(c *chunkRec) bool { return c.state == chunkVisible }

func anyState(*chunkRec) bool { return true }

// find a part in a chunk.
func (d *directory) find(chunk, id uint32) uint32 {
	for rec := d.chunks.all[chunk].first; rec != 0; rec = d.parts.all[rec].next {
		if d.parts.all[rec].id == id {
			return rec
		}
	}
	return 0
}

// addChunk makes a chunk without parts; 0 = there is no memory.
func (d *directory) addChunk(scope uint16, key *keys.Key, quality uint8, state chunkState, lane uint8) uint32 {
	rec := d.chunks.take()
	if rec == 0 {
		return 0
	}
	c := &d.chunks.all[rec]
	*c = chunkRec{key: [keyBytes]byte(key[:]), gen: c.gen, scope: scope, quality: quality, state: state, lane: lane}
	if d.index.Insert(d.index.Hash(c.key[:]), rec) != nil {
		d.freeChunk(rec)
		return 0
	}
	return rec
}

// addPart links a part into its chunk and its segment. false = no memory.
func (d *directory) addPart(chunk uint32, id uint32, checksum uint64, l segment.Location) bool {
	c := &d.chunks.all[chunk]
	rec := uint32(0)
	if c.have < math.MaxUint16 {
		rec = d.parts.take()
	}
	if rec == 0 {
		return false
	}
	p := &d.parts.all[rec]
	*p = partRec{checksum: checksum, id: id, chunk: chunk}
	p.place(l)
	at := &c.first
	for *at != 0 && d.parts.all[*at].id < id {
		at = &d.parts.all[*at].next
	}
	p.next, *at = *at, rec
	c.have++
	d.link(rec)
	return true
}

// link puts a part into the list of its segment.
func (d *directory) link(rec uint32) {
	p := &d.parts.all[rec]
	s := d.segments[p.segment]
	if s == nil {
		s = &segmentState{pinned: d.isPinned(p.segment)}
		d.segments[p.segment] = s
	}
	p.after, p.before = s.first, 0
	if s.first != 0 {
		d.parts.all[s.first].before = rec
	}
	s.first = rec
	s.parts++
	d.count(s, p.location().Footprint())
	if d.chunks.all[p.chunk].state == chunkPending {
		s.pending++
	}
}

// count bytes that are alive in a segment.
func (d *directory) count(s *segmentState, bytes int64) {
	s.live += bytes
	if s.pinned {
		d.pinned += bytes
	}
}

func (d *directory) unlink(rec uint32) {
	p := &d.parts.all[rec]
	s := d.segments[p.segment]
	if p.before != 0 {
		d.parts.all[p.before].after = p.after
	} else {
		s.first = p.after
	}
	if p.after != 0 {
		d.parts.all[p.after].before = p.before
	}
	s.parts--
	d.count(s, -p.location().Footprint())
	if d.chunks.all[p.chunk].state == chunkPending {
		s.pending--
	}
}

// turn a chunk into another state.
func (d *directory) turn(chunk uint32, state chunkState) {
	c := &d.chunks.all[chunk]
	for rec := c.first; rec != 0; rec = d.parts.all[rec].next {
		s := d.segments[d.parts.all[rec].segment]
		if c.state == chunkPending {
			s.pending--
		}
		if state == chunkPending {
			s.pending++
		}
	}
	c.state = state
}

// move a part to another place.
func (d *directory) move(rec uint32, l segment.Location) {
	d.unlink(rec)
	d.parts.all[rec].place(l)
	d.link(rec)
}

// removeChunk forgets a chunk and appends where its parts lie.
func (d *directory) removeChunk(chunk uint32, locs []segment.Location) []segment.Location {
	c := &d.chunks.all[chunk]
	d.index.Remove(d.index.Hash(c.key[:]), chunk)
	for rec := c.first; rec != 0; {
		p := &d.parts.all[rec]
		next := p.next
		locs = append(locs, p.location())
		d.unlink(rec)
		d.parts.give(rec, partRec{})
		rec = next
	}
	d.freeChunk(chunk)
	return locs
}

func (d *directory) freeChunk(rec uint32) {
	d.chunks.give(rec, chunkRec{gen: d.chunks.all[rec].gen + 1})
}
