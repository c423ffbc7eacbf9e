package segment

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/minio/crc64nvme"
)

// reader reads a segment file; it has no state beside what it reads.
type reader struct {
	file     File
	store    ID
	sequence uint64
	mem      *buffers
}

// readPages returns n pages at page. Corrupt if the file ends before.
func (r *reader) readPages(page, n int64) (*buffer, error) {
	buf := r.mem.get(int(n) * PageBytes)
	got, err := r.file.ReadVec([][]byte{buf.b}, page*PageBytes)
	if err == nil && got < n*PageBytes {
		err = corrupt("file", "it ends too early").With(page*PageBytes+got, (page+n)*PageBytes)
	}
	if err != nil {
		r.mem.put(buf)
		return nil, systemFault(err, "read", "a segment cannot be read")
	}
	return buf, nil
}

func (r *reader) head() (h head, err error) {
	buf, err := r.readPages(0, 1)
	if err != nil {
		return h, err
	}
	defer r.mem.put(buf)
	return decodeHead(buf.b, r.store, r.sequence)
}

// trailer reads the last page of a file of so many bytes.
func (r *reader) trailer(size int64) (t trailer, err error) {
	if size < 3*PageBytes || size%PageBytes != 0 {
		return t, corrupt("trailer", "there is none")
	}
	buf, err := r.readPages(size/PageBytes-1, 1)
	if err != nil {
		return t, err
	}
	defer r.mem.put(buf)
	return decodeTrailer(buf.b, r.store, r.sequence, size)
}

// table visits the groups of a sealed segment, none unless all are sound.
func (r *reader) table(t trailer, visit func(*group) error) error {
	buf, err := r.readPages(int64(t.tablePage), max(pagesOf(int64(t.tableBytes)), 1))
	if err != nil {
		return err
	}
	defer r.mem.put(buf)
	b := buf.b[:t.tableBytes]
	if err := decodeTable(b, t, r.store, r.sequence, func(*group) error { return nil }); err != nil {
		return err
	}
	return decodeTable(b, t, r.store, r.sequence, visit)
}

// walk visits groups from the first on, up to the first that is not one, and
// returns the page where it stopped. An error is the visitor's or the device's;
// the end of the groups is none.
func (r *reader) walk(size int64, visit func(*group) error) (int64, error) {
	next := walkState{page: 1}
	for {
		g, buf, err := r.groupAt(next.page, 0)
		if err == nil {
			err = next.follow(&g, size/PageBytes)
			if err == nil {
				err = visit(&g)
				r.mem.put(buf)
				if err != nil {
					return next.page, err
				}
				continue
			}
			r.mem.put(buf)
		}
		if errors.Is(err, fault.Corrupt) {
			err = nil
		}
		return next.page, err
	}
}

// groupAt reads the header at page. pages is its length, or 0 if it is not
// known. The group's body lies in the buffer, which the caller puts back.
func (r *reader) groupAt(page, pages int64) (group, *buffer, error) {
	buf, err := r.readPages(page, max(pages, 1))
	if err != nil {
		return group{}, nil, err
	}
	if n := headerPagesOf(buf.b); pages == 0 && n > 1 {
		r.mem.put(buf)
		if buf, err = r.readPages(page, n); err != nil {
			return group{}, nil, err
		}
	}
	g, err := decodeGroup(buf.b, r.store, r.sequence)
	if err == nil && int64(g.place.page) != page {
		err = corrupt("group.page", "it is another place's").With(g.place.page, page)
	}
	if err != nil {
		r.mem.put(buf)
		return group{}, nil, err
	}
	return g, buf, nil
}

// headerPagesOf is the length that a header claims; 1 if it is none.
func headerPagesOf(b []byte) int64 {
	if n := int64(le.Uint32(b[atLength:])); string(b[:8]) == magicGroup && n > 0 && n <= maxHeaderBytes && n%PageBytes == 0 {
		return n / PageBytes
	}
	return 1
}

// loadSegment opens a file of the directory. A segment that cannot be read is
// Broken, not an error. nil: there was nothing in the file, and it is gone.
func (s *Store) loadSegment(ctx context.Context, sequence uint64) (*segment, error) {
	name := s.path(sequence)
	f, err := s.fs.Open(name, s.opt.Buffered)
	if err != nil {
		return nil, systemFault(err, "open", "a segment cannot be opened")
	}
	g := &segment{sequence: sequence, file: f, state: StateBroken}
	size, allocated, err := f.Size()
	if err != nil {
		return g, systemFault(err, "open", "a segment cannot be opened")
	}
	g.allocated = allocated
	r := &reader{f, s.super.id, sequence, &s.mem}
	t, err := r.trailer(size)
	if err == nil {
		g.head, g.state = t.head, StateSealed
		g.groups, g.parts, g.bytes, g.live = t.groups, t.parts, t.bytes, t.bytes
		return g, nil
	}
	if !errors.Is(err, fault.Corrupt) {
		return g, s.fail(err, "open", "")
	}
	return s.recover(ctx, g, r, size)
}

// recover reads a segment that has no footer and seals it.
func (s *Store) recover(ctx context.Context, g *segment, r *reader, size int64) (*segment, error) {
	g.recovered = true
	h, headErr := r.head()
	g.head = h
	rec, err := s.survey(ctx, g, r, size)
	switch {
	case err != nil:
		return g, err
	case g.groups > 0:
	case headErr == nil || blank(r):
		// A process ended before anything was written.
		if err := errors.Join(g.file.Close(), s.fs.Remove(s.path(g.sequence))); err != nil {
			return nil, s.fail(err, "open", "an empty segment cannot be removed")
		}
		return nil, nil
	default:
		s.count.fault(fault.Corrupt)
		return g, nil
	}
	if headErr != nil {
		// Lost with the last power cut: the groups say all but the name.
		g.head = head{created: s.opt.Now(), capacity: size, class: Class{ID: rec.class}}
		buf := s.mem.get(PageBytes)
		defer s.mem.put(buf)
		encodeHead(buf.b, s.super.id, g.sequence, g.head)
		if err := g.file.WriteVec([][]byte{buf.b}, 0); err != nil {
			_ = s.fail(err, "open", "a segment's head cannot be written") // it can be read all the same
			return g, nil
		}
	}
	// What the last process acknowledged is on the device; that it stays there
	// needs a sync before a footer says so.
	if err := g.file.SyncData(); err != nil {
		_ = s.fail(err, "open", "a segment cannot be synced") // it can be read all the same
		return g, nil
	}
	t := trailer{head: g.head, tablePage: uint32(rec.end), groups: g.groups, parts: g.parts, bytes: g.bytes}
	if _, err := s.writeFooter(g.file, g.sequence, t, rec.table); err != nil {
		return g, nil // counted; it can be read all the same
	}
	g.state = StateSealed
	_, allocated, err := g.file.Size()
	if err == nil {
		g.allocated = allocated
	}
	return g, s.fail(err, "open", "a segment cannot be measured")
}

// blank says whether the first pages were never written.
func blank(r *reader) bool {
	size, _, err := r.file.Size()
	if err != nil {
		return false
	}
	for page := range min(size/PageBytes, 2) {
		buf, err := r.readPages(page, 1)
		if err != nil {
			return false
		}
		empty := zero(buf.b)
		r.mem.put(buf)
		if !empty {
			return false
		}
	}
	return true
}

// surveyed is what a walk found.
type surveyed struct {
	end   int64
	table []byte
	class uint16
}

// survey walks over the groups, and checks the bytes of those that were not
// synced when the last header was written: only they can be torn.
func (s *Store) survey(ctx context.Context, g *segment, r *reader, size int64) (surveyed, error) {
	var found surveyed
	var durable uint64
	var starts []int // of bodies in the table
	end, err := r.walk(size, func(gr *group) error {
		starts = append(starts, len(found.table))
		found.table = append(found.table, gr.body...)
		found.class = gr.place.class
		durable = max(durable, gr.place.durable)
		g.groups++
		g.parts += gr.entries
		g.bytes += int64(int(gr.place.pages)-gr.headerPages) * PageBytes
		return ctx.Err()
	})
	found.end, g.live = end, g.bytes
	if ctx.Err() != nil {
		return found, stopped(ctx)
	}
	if err != nil {
		return found, s.fail(err, "open", "")
	}
	for i := int(durable); i < len(starts); i++ {
		b := found.table[starts[i]:]
		gr, err := decodeBody(b[:bodyLength(b)], r.store, r.sequence)
		if err != nil {
			return found, err
		}
		for e := range gr.entries {
			if err := s.surveyPart(ctx, g, r, &gr, e); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// surveyPart checks the bytes of a part, and punches out what is torn so that
// nobody looks for it.
func (s *Store) surveyPart(ctx context.Context, g *segment, r *reader, gr *group, e int) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	l := gr.location(g.sequence, e)
	if gone, err := r.punched(l); gone || err != nil {
		g.live -= l.Footprint()
		return err
	}
	err := r.verifyPart(l, gr.entry(e))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fault.Corrupt) {
		return s.fail(err, "open", "")
	}
	s.count.tornParts.Add(1)
	g.live -= l.Footprint()
	if err := g.file.Punch(int64(l.Page)*PageBytes, l.Footprint()); err != nil {
		s.count.punchErrors.Add(1)
	}
	return nil
}

// punched says whether nothing is left of a part's bytes.
func (r *reader) punched(l Location) (bool, error) {
	at := int64(l.Page) * PageBytes
	next, err := r.file.NextData(at)
	if err != nil {
		return false, systemFault(err, "read", "a segment cannot be asked for its holes")
	}
	return next >= at+l.Footprint(), nil
}

// verifyPart reads the bytes of a part and checks them.
func (r *reader) verifyPart(l Location, e groupEntry) error {
	buf, err := r.readPages(int64(l.Page), pagesOf(int64(l.Length)))
	if err != nil {
		return err
	}
	defer r.mem.put(buf)
	var d part.Descriptor
	if err := e.decode(&d); err != nil {
		return err
	}
	return e.verify(&d, buf.b[:l.Length])
}

// decode reads the entry's descriptor.
func (e groupEntry) decode(d *part.Descriptor) error {
	if err := part.Decode(d, e.descriptor); err != nil {
		return fault.Wrap(fault.Corrupt, err, "segment.descriptor", "it is damaged")
	}
	return nil
}

// verify checks the bytes against the decoded descriptor.
func (e groupEntry) verify(d *part.Descriptor, data []byte) error {
	if e.hasPayload {
		if crc64nvme.Checksum(data) != e.payload {
			return corrupt("payload", "the bytes do not match their checksum")
		}
		if !d.Known() {
			return nil
		}
	} else if !d.Known() {
		return corrupt("payload", "bytes of an unknown encoding have no checksum")
	}
	return part.Verify(d, data)
}
