package segment

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// Describe reads the descriptor of the part at a location into d, as Read does,
// without the part's bytes: whether those are sound it cannot say. Errors are
// those of Read.
func (s *Store) Describe(ctx context.Context, l Location, c Claim, d *part.Descriptor) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := l.plausible(); err != nil {
		s.count.stale.Add(1)
		return err
	}
	g := s.use(l.Segment)
	if g == nil {
		s.count.stale.Add(1)
		return fault.New(fault.Miss, "segment.location", "the segment is gone").With(l.Segment, nil)
	}
	defer s.done(g)
	if err := s.turn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	gr, err := s.header(&reader{g.file, s.super.id, g.sequence, &s.mem}, l)
	if err == nil {
		_, err = describes(&gr, l, c, d)
	}
	if k, _ := fault.KindOf(err); k == fault.Miss {
		s.count.stale.Add(1)
		return err
	}
	return s.fail(err, "read", "a header cannot be read")
}

// describes compares what the header names with what was claimed.
func describes(g *group, l Location, c Claim, d *part.Descriptor) (groupEntry, error) {
	miss := fault.New(fault.Miss, "segment.claim", "another part lies there")
	if int(l.Entry) >= g.entries || g.location(l.Segment, int(l.Entry)) != l {
		return groupEntry{}, miss.With(l, nil)
	}
	e := g.entry(int(l.Entry))
	if e.scope != c.Scope || le.Uint64(e.descriptor[len(e.descriptor)-sumBytes:]) != c.Checksum {
		return e, miss
	}
	if err := e.decode(d); err != nil {
		return e, err
	}
	if d.ID != c.ID {
		return e, miss.With(d.ID, c.ID)
	}
	return e, nil
}
