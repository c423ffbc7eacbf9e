package segment

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
)

// punchBatch bounds the ranges that are punched while reads of a segment wait.
const punchBatch = 64

// Punch gives the space of parts back at once. Reads of their segments that are
// at work end first. What cannot be punched is counted, and is not alive any
// more all the same; the error is the first one's, Unavailable. A location must
// not be punched twice; parts of a segment that is gone are.
//
// Only the index remembers that a part was punched: headers still name it, and
// the range may come back after a power cut, until SyncPunched.
func (s *Store) Punch(ctx context.Context, locations []Location) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	ls := slices.Clone(locations)
	slices.SortFunc(ls, func(a, b Location) int {
		return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Page, b.Page))
	})
	var first error
	for len(ls) > 0 {
		if ctx.Err() != nil {
			return errors.Join(first, stopped(ctx))
		}
		n := 1
		for n < len(ls) && n < punchBatch && ls[n].Segment == ls[0].Segment {
			n++
		}
		if g := s.use(ls[0].Segment); g != nil {
			if err := s.punchOut(g, ls[:n]); err != nil && first == nil {
				first = err
			}
			s.done(g)
		}
		ls = ls[n:]
	}
	return first
}

// SyncPunched returns when everything that was punched stays so, whatever
// happens. Unavailable: some of it may come back.
func (s *Store) SyncPunched(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if s.punches.Acquire(ctx, 1) != nil {
		return stopped(ctx)
	}
	defer s.punches.Release(1)
	var dirty []*segment
	s.mu.Lock()
	for _, g := range s.segments {
		if g.punched {
			g.refs++
			dirty = append(dirty, g)
		}
	}
	s.mu.Unlock()
	var first error
	for _, g := range dirty {
		if first == nil && ctx.Err() != nil {
			first = stopped(ctx)
		}
		if first == nil {
			first = s.syncPunched(g)
		}
		s.done(g)
	}
	return first
}

func (s *Store) syncPunched(g *segment) error {
	s.mu.Lock()
	g.punched = false // what is punched from now on is another matter
	s.mu.Unlock()
	err := s.fail(g.file.SyncData(), "punch", "punched ranges could not be synced")
	if err != nil {
		s.mu.Lock()
		g.punched = true
		s.mu.Unlock()
	}
	return err
}

func (s *Store) punchOut(g *segment, ls []Location) error {
	var freed, dead int64
	var first error
	g.punch.Lock()
	for len(ls) > 0 {
		// Neighbours without a header between them are one range.
		at, length, n := int64(ls[0].Page)*PageBytes, ls[0].Footprint(), 1
		for n < len(ls) && int64(ls[n].Page)*PageBytes == at+length {
			length += ls[n].Footprint()
			n++
		}
		ls = ls[n:]
		dead += length
		s.count.punches.Add(1)
		if err := g.file.Punch(at, length); err != nil {
			s.count.punchErrors.Add(1)
			if e := s.fail(err, "punch", "space cannot be given back"); first == nil {
				first = e
			}
			continue
		}
		freed += length
	}
	g.punch.Unlock()
	s.count.punchBytes.Add(freed)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.punched = true
	g.live = max(g.live-dead, 0)
	s.setAllocated(g, max(g.allocated-freed, 0))
	return first
}

// Drop removes a segment with all of its parts and returns what it took. Reads
// at work end with the bytes they came for. A part of an Append at work that
// was to lie in it is lost. Miss: it is gone already.
func (s *Store) Drop(sequence uint64) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	return s.drop(sequence)
}

func (s *Store) drop(sequence uint64) (int64, error) {
	s.mu.Lock()
	g := s.segments[sequence]
	if g == nil {
		s.mu.Unlock()
		return 0, fault.New(fault.Miss, "segment", "the segment is gone").With(sequence, nil)
	}
	delete(s.segments, sequence)
	s.used -= g.allocated
	g.dropped = true
	s.detachSegment(g)
	g.refs++
	bytes := g.allocated
	s.mu.Unlock()
	err := s.fs.Remove(s.path(sequence))
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	s.done(g)
	s.count.dropped.Add(1)
	s.count.droppedBytes.Add(bytes)
	return bytes, s.fail(err, "drop", "a segment cannot be removed")
}
