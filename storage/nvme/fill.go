package nvme

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
)

// filler reads what is there at start. The store is not shared yet.
type filler struct {
	s      *Store
	report Report
	// present segments; scan says which of them the index does not vouch for.
	present map[uint64]segment.Info
	scan    map[uint64]bool
	// gone segments have entries in the index only.
	gone map[uint64]bool
	// twice are parts that are there already.
	twice []segment.Location
	// buf is for reading one of two.
	buf []byte
	// found in the segment that is scanned.
	found []index.Entry
}

// fill opens the index, reads it, and scans what it does not vouch for.
func (s *Store) fill(ctx context.Context, dir string) (Report, error) {
	f := &filler{s: s, present: map[uint64]segment.Info{}, scan: map[uint64]bool{}, gone: map[uint64]bool{}}
	for _, info := range s.segments.Segments() {
		if info.Sequence > math.MaxUint32 {
			return f.report, fault.New(fault.Invalid, "nvme.segment", "the sequence is too large").With(info.Sequence, uint32(math.MaxUint32))
		}
		f.present[info.Sequence] = info
		f.scan[info.Sequence] = true
	}
	f.report.Segments = len(f.present)
	if err := f.load(ctx, dir); err != nil {
		return f.report, err
	}
	if err := f.scanAll(ctx); err != nil {
		return f.report, err
	}
	// Before the directory says what is alive: a punch takes off what it frees.
	s.punch(f.twice)
	for seq := range f.present {
		if s.unread[uint32(seq)] {
			continue // for all that anybody knows, all of it is alive
		}
		live := int64(0)
		if seg := s.dir.segments[uint32(seq)]; seg != nil {
			live = seg.live
		}
		s.segments.SetLive(seq, live)
	}
	f.report.Parts = s.dir.parts.used
	return f.report, nil
}

// load reads the index; one that cannot be trusted is made anew.
func (f *filler) load(ctx context.Context, dir string) error {
	s := f.s
	open := func() (err error) {
		s.index, err = index.Open(dir, index.Options{
			Store: s.segments.ID(), SyncInterval: s.opt.Segment.SyncInterval, SyncBytes: s.opt.Segment.SyncBytes, FS: s.opt.IndexFS,
			Trouble: s.opt.Trouble,
		})
		return err
	}
	if s.opt.rebuild {
		if err := index.SetAside(dir, s.opt.IndexFS); err != nil {
			return err
		}
	}
	err := open()
	if err == nil && s.index.Fresh() && len(f.present) > 0 {
		f.report.Rebuilt = "there was none"
	}
	if err == nil {
		err = f.read(ctx)
	}
	if !errors.Is(err, fault.Corrupt) {
		return err
	}
	f.report.Rebuilt = err.Error()
	f.report.Stale = 0
	if s.index != nil {
		_ = s.index.Close() // it is damaged; what it says about that is known
	}
	if err := index.Destroy(dir, s.opt.IndexFS); err != nil {
		return err
	}
	if err := s.dir.close(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "nvme", "cannot begin again")
	}
	if s.dir, err = newDirectory(s.opt.MaxParts, s.pinnedSegment); err != nil {
		return err
	}
	s.scopes, f.twice, f.gone = nil, nil, map[uint64]bool{}
	for seq := range f.present {
		f.scan[seq] = true
	}
	return open()
}

func (f *filler) read(ctx context.Context) error {
	s := f.s
	for n, sc := range s.index.Scopes() {
		s.scope(uint16(n), sc)
	}
	err := s.index.Load(func(seq uint64) {
		if info, ok := f.present[seq]; !ok {
			f.gone[seq] = true
		} else if !info.Recovered {
			delete(f.scan, seq)
		}
	}, func(e index.Entry) error {
		switch _, present := f.present[e.Location.Segment]; {
		case !present:
			f.gone[e.Location.Segment] = true
			f.report.Stale++
			return nil
		case f.scan[e.Location.Segment]:
			return nil // the segment itself knows better
		}
		return f.add(ctx, &e, false)
	})
	if err != nil {
		return err
	}
	for seq := range f.gone {
		s.index.RemoveSegment(seq)
	}
	for seq := range f.present {
		if seg := s.dir.segments[uint32(seq)]; seg != nil && !f.scan[seq] {
			seg.sealed, seg.settled = true, true
		}
	}
	return nil
}

// add puts a part into the directory.
func (f *filler) add(ctx context.Context, e *index.Entry, fresh bool) error {
	s, key := f.s, &e.ID.Chunk
	chunk := s.dir.lookup(e.Scope, key, func(c *chunkRec) bool { return c.state == chunkLoaded && c.quality == e.Quality })
	if chunk == 0 {
		if chunk = s.dir.addChunk(e.Scope, key, e.Quality, chunkLoaded, key[keyBytes]); chunk == 0 {
			return f.noRoom()
		}
	} else if rec := s.dir.find(chunk, idOf(e.ID)); rec != 0 {
		f.again(ctx, rec, e, fresh)
		return nil
	}
	if !s.dir.addPart(chunk, idOf(e.ID), e.Checksum, e.Location) {
		return f.noRoom()
	}
	if fresh {
		s.index.Add(*e)
	}
	return nil
}

// again is a part that is there already: a move was cut short, or a power cut
// brought back what had been punched, or the index is of some time ago and names
// a place whose bytes were given back. One that is pinned stays, else the older,
// unless the other's bytes are worth more.
//
// The other is punched, lest it comes back after a delete; but only beside bytes
// that are sound and durable, and only where the disk itself says that they are
// this part's: an index from elsewhere can name any place.
func (f *filler) again(ctx context.Context, rec uint32, e *index.Entry, fresh bool) {
	s, p := f.s, &f.s.dir.parts.all[rec]
	here := index.Entry{Scope: e.Scope, ID: e.ID, Quality: e.Quality, Location: p.location(), Checksum: p.checksum}
	stays, goes := &here, e
	if !s.dir.segments[p.segment].pinned && s.pinnedSegment(uint32(e.Location.Segment)) {
		stays, goes = goes, stays
	}
	worth := f.worth(ctx, stays)
	if worth < sound {
		if other := f.worth(ctx, goes); other > worth {
			stays, goes, worth = goes, stays, other
		}
	}
	if stays == e {
		s.dir.move(rec, e.Location)
		p.checksum = e.Checksum
		if fresh {
			s.index.Add(*e)
		}
	}
	if goes == &here || !fresh {
		s.index.Remove(goes.Location)
	}
	var d part.Descriptor
	if worth == sound && s.segments.Describe(ctx, goes.Location, f.claim(goes), &d) == nil {
		f.twice = append(f.twice, goes.Location)
	}
}

// worth of a place, ascending.
type worth uint8

const (
	// unsound: other bytes lie there, or none.
	unsound worth = iota
	// unanswered: the device did not say.
	unanswered
	// undurable: a power cut may take them, since their segment could not be
	// synced.
	undurable
	sound
)

// worth of a place, as reading it says.
func (f *filler) worth(ctx context.Context, e *index.Entry) worth {
	if n := e.Location.Footprint(); int64(len(f.buf)) < n {
		f.buf = make([]byte, n)
	}
	var d part.Descriptor
	_, err := f.s.segments.Read(ctx, e.Location, f.claim(e), &d, f.buf)
	switch {
	case errors.Is(err, fault.Corrupt), errors.Is(err, fault.Miss):
		return unsound
	case err != nil:
		return unanswered
	case f.present[e.Location.Segment].State != segment.StateSealed:
		return undurable
	}
	return sound
}

func (f *filler) claim(e *index.Entry) segment.Claim {
	return segment.Claim{Scope: f.s.scopes[e.Scope].Scope, ID: e.ID, Checksum: e.Checksum}
}

func (f *filler) noRoom() error {
	return fault.New(fault.Full, "nvme.max_parts", "there are more parts on the disk than the directory may have").
		With(f.s.dir.parts.used, f.s.opt.MaxParts)
}

// scanAll reads the tables of the segments that the index does not vouch for. One
// that the device does not read is tried once more after all others, and is unread
// then.
func (f *filler) scanAll(ctx context.Context) error {
	s := f.s
	total, done := len(f.scan), 0
	var failed []uint64
	for _, info := range s.segments.Segments() {
		if !f.scan[info.Sequence] {
			continue
		}
		s.index.RemoveSegment(info.Sequence)
		switch err := f.scanOne(ctx, info.Sequence); {
		case errors.Is(err, fault.Full) || ctx.Err() != nil:
			return err
		case err != nil:
			failed = append(failed, info.Sequence)
		}
		f.report.Scanned++
		done++
		s.opt.Progress(done, total)
	}
	for _, seq := range failed {
		err := f.scanOne(ctx, seq)
		if errors.Is(err, fault.Full) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			s.unread[uint32(seq)] = true
			_ = s.device(fmt.Errorf("segment %d: %w", seq, err))
		}
	}
	f.report.Unread = len(s.unread)
	return nil
}

// scanOne enters the parts of a segment, all or, with an error that is not Full,
// none.
func (f *filler) scanOne(ctx context.Context, seq uint64) error {
	f.found = f.found[:0]
	err := f.s.segments.Scan(ctx, seq, func(e segment.Entry) error { return f.find(&e) })
	for i := range f.found {
		if err != nil {
			return err
		}
		err = f.add(ctx, &f.found[i], true)
	}
	return err
}

func (f *filler) find(e *segment.Entry) error {
	if e.Punched {
		return nil
	}
	number, err := f.s.index.Scope(e.Scope)
	if err != nil {
		return err
	}
	f.s.scope(number, e.Scope)
	f.found = append(f.found, index.Entry{Scope: number, ID: e.Part.ID, Quality: e.Part.Quality, Location: e.Location, Checksum: e.Part.Checksum})
	return nil
}
