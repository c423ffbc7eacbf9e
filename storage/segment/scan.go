package segment

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// Scan visits the parts of a segment in the order in which they were written,
// from its footer, or if there is none or it is damaged, from the headers of its
// groups. It reads no bytes of parts. Of an open segment it finds what was
// acknowledged before the call.
//
// Miss: the segment is gone. An error of the visitor ends the scan and is
// returned.
func (s *Store) Scan(ctx context.Context, sequence uint64, visit func(Entry) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	g := s.use(sequence)
	if g == nil {
		return fault.New(fault.Miss, "segment", "the segment is gone").With(sequence, nil)
	}
	defer s.done(g)
	s.mu.Lock()
	var limit int64
	if g.w != nil {
		limit = g.w.acknowledged * PageBytes
	}
	s.mu.Unlock()
	r := &reader{g.file, s.super.id, sequence, &s.mem}
	size, _, err := g.file.Size()
	if err != nil {
		return s.fail(err, "scan", "a segment cannot be measured")
	}
	if limit > 0 {
		size = limit
	}
	var own error
	err = r.scan(ctx, size, limit > 0, func(e Entry) error {
		own = visit(e)
		return own
	})
	if err == nil || own != nil {
		return own
	}
	return s.fail(err, "scan", "a segment cannot be scanned")
}

// scan visits entries. open: there is no footer yet.
func (r *reader) scan(ctx context.Context, size int64, open bool, visit func(Entry) error) error {
	var t trailer
	err := error(corrupt("trailer", "there is none"))
	if !open {
		t, err = r.trailer(size)
	}
	var d part.Descriptor
	began := false
	each := func(g *group) error {
		began = true
		return r.entries(ctx, g, &d, visit)
	}
	if err == nil {
		err = r.table(t, each)
	}
	if began || !errors.Is(err, fault.Corrupt) {
		return err
	}
	_, err = r.walk(size, each)
	return err
}

func (r *reader) entries(ctx context.Context, g *group, d *part.Descriptor, visit func(Entry) error) error {
	for i := range g.entries {
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		e := g.entry(i)
		if err := part.Decode(d, e.descriptor); err != nil {
			// The header's checksum is right: it was written so. Nothing may rely on
			// it, and the others are not to blame.
			continue
		}
		l := g.location(r.sequence, i)
		punched, err := r.punched(l)
		if err != nil {
			return err
		}
		if err := visit(Entry{Scope: e.scope, Location: l, Part: d, Punched: punched}); err != nil {
			return err
		}
	}
	return nil
}
