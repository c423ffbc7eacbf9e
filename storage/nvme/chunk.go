package nvme

import (
	"context"
	"errors"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
)

// assembly is what the parts of an incomplete chunk share.
type assembly struct {
	key, parent keys.Key
	ordinal     uint32
	tokens      uint16
}

// waiting is an assembly in the order of age; it is stale if the record has
// another generation.
type waiting struct {
	chunk, gen uint32
	since      time.Time
}

// judge says what a part is to what is there: 0 = it is wanted, and pending is
// the chunk that it goes into, if there is one. The caller holds mu.
func (s *Store) judge(sc *scope, d *part.Descriptor) (out storage.Outcome, pending uint32, err error) {
	dir, key := s.dir, &d.ID.Chunk
	if c := dir.lookup(sc.number, key, isVisible); c != 0 && dir.chunks.all[c].quality <= d.Quality {
		return s.compare(dir.find(c, idOf(d.ID)), d), 0, nil
	}
	pending = dir.lookup(sc.number, key, func(c *chunkRec) bool { return c.state == chunkPending && c.quality == d.Quality })
	if pending == 0 {
		return 0, 0, nil
	}
	if a := s.assemblies[pending]; a.parent != d.Parent || a.ordinal != d.Ordinal || a.tokens != d.Tokens {
		return 0, 0, fault.New(fault.Invalid, "put.chunk", "parent, ordinal or tokens disagree with parts that are there")
	}
	if rec := dir.find(pending, idOf(d.ID)); rec != 0 {
		return s.compare(rec, d), pending, nil
	}
	return 0, pending, nil
}

func (s *Store) compare(rec uint32, d *part.Descriptor) storage.Outcome {
	if rec != 0 && s.dir.parts.all[rec].checksum == d.Checksum {
		return storage.Duplicate
	}
	return storage.Conflict
}

// assemble puts a part that was written into its chunk, and publishes it if it
// is complete. What is to be punched is appended to locs: the part itself,
// where it is not kept, or what it replaces. The caller holds mu.
func (s *Store) assemble(sc *scope, d *part.Descriptor, l segment.Location, lane uint8, locs []segment.Location) (storage.Outcome, []segment.Location, error) {
	out, chunk, err := s.judge(sc, d)
	if err != nil || out != 0 {
		return out, append(locs, l), err
	}
	full := func() (storage.Outcome, []segment.Location, error) {
		return 0, append(locs, l), fault.New(fault.Full, "nvme.max_parts", "the directory is full").With(s.dir.parts.used, s.opt.MaxParts)
	}
	if chunk == 0 {
		if chunk = s.dir.addChunk(sc.number, &d.ID.Chunk, d.Quality, chunkPending, lane); chunk == 0 {
			return full()
		}
		s.assemblies[chunk] = &assembly{d.ID.Chunk, d.Parent, d.Ordinal, d.Tokens}
		s.waiting = append(s.waiting, waiting{chunk, s.dir.chunks.all[chunk].gen, s.opt.Segment.Now()})
	}
	if !s.dir.addPart(chunk, idOf(d.ID), d.Checksum, l) {
		if s.dir.chunks.all[chunk].have == 0 {
			locs = s.forget(chunk, locs)
		}
		return full()
	}
	if int(s.dir.chunks.all[chunk].have) < len(sc.layout) {
		for len(s.assemblies) > s.opt.MaxPending && len(s.waiting) > 0 {
			locs = s.dropWaiting(s.waiting[0], locs)
			s.waiting = s.waiting[1:]
		}
		return storage.Kept, locs, nil
	}
	if old := s.dir.lookup(sc.number, &d.ID.Chunk, isVisible); old != 0 && s.outside(old, pinned) == nil && s.outside(chunk, pinned) != nil {
		return 0, s.forget(chunk, locs), fault.New(fault.Miss, "put.pinned", "the chunk that is here was pinned while a better one was written")
	}
	return storage.Published, s.publish(sc, chunk, locs), nil
}

// publish makes a complete chunk visible, in memory and in the index. What it
// replaces goes.
func (s *Store) publish(sc *scope, chunk uint32, locs []segment.Location) []segment.Location {
	dir, key := s.dir, s.assemblies[chunk].key
	quality := dir.chunks.all[chunk].quality
	for {
		old := dir.lookup(sc.number, &key, func(c *chunkRec) bool {
			return c != &dir.chunks.all[chunk] && (c.state == chunkVisible || c.quality >= quality)
		})
		if old == 0 {
			break
		}
		locs = s.forget(old, locs)
	}
	dir.turn(chunk, chunkVisible)
	delete(s.assemblies, chunk)
	for rec := dir.chunks.all[chunk].first; rec != 0; rec = dir.parts.all[rec].next {
		s.index.Add(s.entry(&dir.parts.all[rec], key))
	}
	s.st.Chunks++
	return locs
}

func (s *Store) entry(p *partRec, key keys.Key) index.Entry {
	c := &s.dir.chunks.all[p.chunk]
	return index.Entry{Scope: c.scope, ID: p.partID(key), Quality: c.quality, Location: p.location(), Checksum: p.checksum}
}

// forget removes a chunk from the directory and, if it is there, the index. It
// appends what is to be punched.
func (s *Store) forget(chunk uint32, locs []segment.Location) []segment.Location {
	c := &s.dir.chunks.all[chunk]
	indexed := c.state != chunkPending
	if c.state == chunkVisible {
		s.st.Chunks--
	}
	delete(s.assemblies, chunk)
	at := len(locs)
	locs = s.dir.removeChunk(chunk, locs)
	if indexed {
		s.index.Remove(locs[at:]...)
	}
	return locs
}

// dropWaiting drops an incomplete chunk, if it still is one.
func (s *Store) dropWaiting(w waiting, locs []segment.Location) []segment.Location {
	if c := &s.dir.chunks.all[w.chunk]; c.gen != w.gen || c.state != chunkPending {
		return locs
	}
	s.st.Incomplete++
	return s.forget(w.chunk, locs)
}

// dropBatch chunks are dropped under one hold of the mutex.
const dropBatch = 1024

// removeBatch parts are forgotten by the index, and then punched, at a time.
const removeBatch = 1 << 16

// walk visits the records of all chunks, a batch under each hold of the mutex,
// and removes what visit appends. It returns the bytes of that.
func (s *Store) walk(ctx context.Context, visit func(rec uint32, locs []segment.Location) []segment.Location) (bytes int64, err error) {
	var locs []segment.Location
	for rec, more := uint32(1), true; more; rec += dropBatch {
		s.mu.Lock()
		for i := rec; i < min(rec+dropBatch, s.dir.chunks.high); i++ {
			locs = visit(i, locs)
		}
		more = rec+dropBatch < s.dir.chunks.high
		s.mu.Unlock()
		if more && len(locs) < removeBatch {
			continue
		}
		for _, l := range locs {
			bytes += l.Footprint()
		}
		if len(locs) > 0 {
			err = errors.Join(err, s.release(ctx, locs))
			locs = locs[:0]
		}
	}
	return bytes, err
}

// settle decides which of the chunks that were found at start are complete, now
// that the scope's layout is known.
func (s *Store) settle(sc *scope) {
	// What is removed here is so again at the next start, if need be.
	_, _ = s.walk(context.Background(), func(rec uint32, locs []segment.Location) []segment.Location {
		c := &s.dir.chunks.all[rec]
		if c.state != chunkLoaded || c.scope != sc.number {
			return locs
		}
		if !s.complete(sc, c) {
			if len(s.unread) > 0 {
				return locs // the rest may lie there
			}
			return s.forget(rec, locs)
		}
		// A better one that is complete may be there already, or a worse one.
		other := s.sibling(rec)
		if other != 0 && s.dir.chunks.all[other].quality <= c.quality {
			return s.forget(rec, locs)
		}
		if other != 0 {
			locs = s.forget(other, locs)
		}
		s.dir.turn(rec, chunkVisible)
		s.st.Chunks++
		return locs
	})
}

// sibling is the visible chunk of the same key and scope.
func (s *Store) sibling(rec uint32) uint32 {
	c := &s.dir.chunks.all[rec]
	var key keys.Key
	copy(key[:], c.key[:])
	return s.dir.lookup(c.scope, &key, isVisible)
}

// complete says whether the chunk has exactly the layout's parts.
func (s *Store) complete(sc *scope, c *chunkRec) bool {
	if int(c.have) != len(sc.layout) {
		return false
	}
	for i := range sc.layout {
		p := &sc.layout[i]
		found := false
		for rec := c.first; rec != 0 && !found; rec = s.dir.parts.all[rec].next {
			q := &s.dir.parts.all[rec]
			found = q.id == idOf(part.ID{Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup}) && uint64(q.length) <= p.RawLength // shorter where it is coded
		}
		if !found {
			return false
		}
	}
	return true
}
