package segment

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// besidePages: a header of so many pages directly before a part is read with
// it.
const besidePages = 16

// Read reads the part at a location into dst, its descriptor from the disk into
// d (reusing d.Table's memory), and returns the part's length. Header and bytes
// are verified, and are exactly those of the claim. Where dst begins on a page
// and has room for whole pages (Footprint), the device writes straight into it,
// and dst holds zeros or unspecified bytes behind the part then; else the bytes
// are copied once. A part that is not Known is returned as it was stored.
//
// Miss: the segment is gone, or something else lies there; Corrupt: header or
// bytes are damaged, or were punched out; Invalid: dst is too short, the limit
// says how long it must be; Unavailable. On an error dst holds nothing of use
// and d is as it was or another part's.
func (s *Store) Read(ctx context.Context, l Location, c Claim, d *part.Descriptor, dst []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := l.plausible(); err != nil {
		s.count.stale.Add(1)
		return 0, err
	}
	if int64(len(dst)) < int64(l.Length) {
		return 0, fault.New(fault.Invalid, "segment.read", "the buffer is too short").With(len(dst), l.Length)
	}
	g := s.use(l.Segment)
	if g == nil {
		s.count.stale.Add(1)
		return 0, fault.New(fault.Miss, "segment.location", "the segment is gone").With(l.Segment, nil)
	}
	defer s.done(g)
	if err := s.turn(ctx); err != nil {
		return 0, err
	}
	// Given back before the bytes are verified: the device goes on meanwhile.
	release := sync.OnceFunc(s.endTurn)
	defer release()

	room := dst
	if int64(len(dst)) < l.Footprint() || !isAligned(dst) {
		bounce := s.mem.get(int(l.Footprint()))
		defer s.mem.put(bounce)
		room = bounce.b
	}
	err := s.readInto(g, l, c, d, room[:l.Footprint()], release)
	if err != nil {
		clear(dst[:l.Length])
		if errors.Is(err, fault.Miss) {
			s.count.stale.Add(1)
			return 0, err
		}
		return 0, s.fail(err, "read", "a part cannot be read")
	}
	if &room[0] != &dst[0] {
		copy(dst, room[:l.Length])
	}
	s.count.readParts.Add(1)
	s.count.readBytes.Add(int64(l.Length))
	return int(l.Length), nil
}

// turn waits until the device may be asked to read.
func (s *Store) turn(ctx context.Context) error {
	s.count.reading.Add(1)
	if s.reads.Acquire(ctx, 1) != nil {
		s.count.reading.Add(-1)
		return stopped(ctx)
	}
	return nil
}

func (s *Store) endTurn() {
	s.reads.Release(1)
	s.count.reading.Add(-1)
}

// plausible refuses what no Append returns.
func (l Location) plausible() error {
	if l.Group < 1 || l.HeaderPages < 1 || int64(l.HeaderPages)*PageBytes > maxHeaderBytes ||
		l.Length < 1 || l.Length > part.MaxLength || uint64(l.Page) < uint64(l.Group)+uint64(l.HeaderPages) {
		return fault.New(fault.Miss, "segment.location", "this is no place of a part").With(l, nil)
	}
	return nil
}

// readInto reads header and part, calls release, and verifies both.
func (s *Store) readInto(g *segment, l Location, c Claim, d *part.Descriptor, room []byte, release func()) error {
	r := &reader{g.file, s.super.id, g.sequence, &s.mem}
	if l.HeaderPages <= besidePages && l.Page == l.Group+uint32(l.HeaderPages) {
		head := s.mem.get(int(l.HeaderPages) * PageBytes)
		defer s.mem.put(head)
		g.punch.RLock()
		n, err := g.file.ReadVec([][]byte{head.b, room}, int64(l.Group)*PageBytes)
		g.punch.RUnlock()
		release()
		switch {
		case err != nil:
			return err
		case n < int64(len(head.b)+len(room)):
			return corrupt("file", "it ends too early").With(n, len(head.b)+len(room))
		}
		gr, err := decodeGroup(head.b, s.super.id, g.sequence)
		if err != nil {
			return err
		}
		if gr.entries > 1 {
			s.remember(l, gr) // others of the group come next
		}
		return matches(&gr, l, c, d, room)
	}
	gr, err := s.header(r, l)
	if err != nil {
		return err
	}
	g.punch.RLock()
	n, err := g.file.ReadVec([][]byte{room}, int64(l.Page)*PageBytes)
	g.punch.RUnlock()
	release()
	switch {
	case err != nil:
		return err
	case n < int64(len(room)):
		return corrupt("file", "it ends too early").With(n, len(room))
	}
	return matches(&gr, l, c, d, room)
}

// header returns a group's header, from the cache if it is there.
func (s *Store) header(r *reader, l Location) (group, error) {
	key := headerKey{l.Segment, l.Group}
	if g, ok := s.cache.get(key); ok {
		s.count.headerHits.Add(1)
		return g, nil
	}
	s.count.headerReads.Add(1)
	g, buf, err := r.groupAt(int64(l.Group), int64(l.HeaderPages))
	if err != nil {
		return group{}, err
	}
	g = s.remember(l, g)
	s.mem.put(buf)
	return g, nil
}

// remember caches a header whose memory is lent, and returns it in its own.
func (s *Store) remember(l Location, g group) group {
	g.body = bytes.Clone(g.body)
	s.cache.put(headerKey{l.Segment, l.Group}, g)
	return g
}

// matches compares what lies there with what was claimed, and verifies it.
func matches(g *group, l Location, c Claim, d *part.Descriptor, room []byte) error {
	e, err := describes(g, l, c, d)
	if err != nil {
		return err
	}
	return e.verify(d, room[:l.Length])
}
