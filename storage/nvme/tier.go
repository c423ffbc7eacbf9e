package nvme

import (
	"bytes"
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// Tier is the store for one scope.
type Tier struct {
	s  *Store
	sc *scope
	// class of what is put.
	class segment.Class
}

var _ storage.Tier = (*Tier)(nil)

// Name implements storage.Tier.
func (*Tier) Name() string { return "nvme" }

// Off says that the device failed too often, or that the store is closed: it has
// nothing and takes nothing until the next start.
func (t *Tier) Off() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.s.closed || t.s.off
}

// Match returns how many leading keys name visible chunks of a quality no worse
// than worst (0 = exact only), and the worst quality among them. It is no use
// of them.
func (t *Tier) Match(list []keys.Key, worst uint8) (chunks int, quality uint8) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.closed || t.s.off {
		return 0, 0
	}
	for i := range list {
		rec := t.s.dir.lookup(t.sc.number, &list[i], isVisible)
		if rec == 0 || t.s.dir.chunks.all[rec].quality > worst {
			return i, quality
		}
		quality = max(quality, t.s.dir.chunks.all[rec].quality)
	}
	return len(list), quality
}

// found is where a part lay when it was looked up.
type found struct {
	chunk, gen uint32
	part       uint32
	location   segment.Location
	claim      segment.Claim
}

// move is a copy of the part.
func (f *found) move() segment.Move { return segment.Move{From: f.location, Claim: f.claim} }

// locate finds a part of a visible chunk.
func (t *Tier) locate(id part.ID, use bool) (found, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	dir := t.s.dir
	chunk := dir.lookup(t.sc.number, &id.Chunk, isVisible)
	rec := uint32(0)
	if chunk != 0 {
		rec = dir.find(chunk, idOf(id))
	}
	if rec == 0 {
		if use {
			t.s.st.Misses++
		}
		return found{}, fault.New(fault.Miss, "part", "not here")
	}
	c, p := &dir.chunks.all[chunk], &dir.parts.all[rec]
	if use && c.uses < 255 {
		c.uses++
	}
	return found{chunk, c.gen, rec, p.location(), segment.Claim{Scope: t.sc.Scope, ID: id, Checksum: p.checksum}}, nil
}

// Get implements storage.Tier. Where dst begins on a page and has room for the
// part's whole pages, the device writes straight into dst.
func (t *Tier) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "get", "stopped")
	}
	if err := t.s.enter(); err != nil {
		return 0, err
	}
	defer t.s.calls.Done()
	f, err := t.locate(id, true)
	if err != nil {
		return 0, err
	}
	n := int(f.location.Length)
	if n > len(dst) {
		return 0, fault.New(fault.Invalid, "get.length", "the buffer is too short").With(len(dst), n)
	}
	room, tail := pagesIn(dst, n)
	_, err = t.s.segments.Read(ctx, f.location, f.claim, d, room)
	copy(dst[n:], tail)
	if err = t.s.answered(&f, err); err != nil {
		return 0, err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.st.Hits++
	t.s.st.ReadBytes += int64(n)
	if !d.Known() {
		return 0, fault.New(fault.Miss, "part.encoding", "unknown encoding").With(d.Encoding, part.EncodingRaw)
	}
	return n, nil
}

// pagesIn is as much of dst as a part of n bytes may be read into: its whole
// pages where they fit, and a copy of what they have behind the part.
func pagesIn(dst []byte, n int) (room, tail []byte) {
	pages := int(footprint(n))
	if pages > len(dst) {
		return dst[:n:n], nil
	}
	return dst[:pages:pages], bytes.Clone(dst[n:pages])
}

// Stat implements storage.Tier. The descriptor comes from the disk.
func (t *Tier) Stat(ctx context.Context, id part.ID, d *part.Descriptor) error {
	if err := t.s.enter(); err != nil {
		return err
	}
	defer t.s.calls.Done()
	f, err := t.locate(id, false)
	if err != nil {
		return err
	}
	return t.s.answered(&f, t.s.segments.Describe(ctx, f.location, f.claim, d))
}

// answered judges what a read said. A part that is damaged, or not where the
// directory has it, takes its chunk with it. One that has moved or gone since it
// was looked up is a miss and nobody's fault.
func (s *Store) answered(f *found, err error) error {
	if err == nil {
		return s.device(nil)
	}
	k, _ := fault.KindOf(err)
	if k != fault.Corrupt && k != fault.Miss {
		return s.device(err)
	}
	s.mu.Lock()
	c, p := &s.dir.chunks.all[f.chunk], &s.dir.parts.all[f.part]
	if c.gen != f.gen || c.state != chunkVisible || p.chunk != f.chunk || p.location() != f.location {
		s.mu.Unlock()
		return fault.Wrap(fault.Miss, err, "part", "not here any more")
	}
	if k == fault.Corrupt {
		s.st.Corrupt++
	} else {
		s.st.Stale++
	}
	locs := s.forget(f.chunk, nil)
	s.mu.Unlock()
	s.punch(locs)
	return err
}

// Delete implements storage.Tier. It returns when the index on the disk has
// forgotten the chunk too. Unavailable, besides the device's errors: a segment is
// unread, and the chunk comes back if it lies there; it is gone from all others.
func (t *Tier) Delete(ctx context.Context, key keys.Key) (bool, error) {
	if err := t.s.enter(); err != nil {
		return false, err
	}
	defer t.s.calls.Done()
	t.s.mu.Lock()
	visible := false
	var locs []segment.Location
	for {
		rec := t.s.dir.lookup(t.sc.number, &key, anyState)
		if rec == 0 {
			break
		}
		visible = visible || t.s.dir.chunks.all[rec].state == chunkVisible
		locs = t.s.forget(rec, locs)
	}
	if visible {
		t.s.st.Deleted++
	}
	t.s.mu.Unlock()
	// Nothing here is no reason to be quick: it may have gone a moment ago, for
	// another reason, and come back after a power cut.
	err := t.s.removeUnread(ctx, func(sc storage.Scope, k keys.Key) bool { return sc == t.sc.Scope && k == key })
	return visible, errors.Join(t.s.finishRemoval(ctx, locs), err)
}

// finishRemoval returns when what was forgotten stays so, whatever happens.
func (s *Store) finishRemoval(ctx context.Context, locs []segment.Location) error {
	if err := s.release(ctx, locs); err != nil {
		return err
	}
	// Whoever moves a part now has two copies of it on the disk: a kill must not
	// bring back the one that the index does not know.
	if err := s.ended(ctx); err != nil {
		return err
	}
	return s.device(s.segments.SyncPunched(ctx))
}

// release waits for the index, then punches: a process that is killed in between
// leaves bytes that nobody names, not an entry without its bytes. An index that
// has ended is no reason to fail: the bytes are gone.
func (s *Store) release(ctx context.Context, locs []segment.Location) error {
	err := s.index.Sync(ctx)
	s.punch(locs)
	if err != nil && s.index.Err() == nil {
		return err
	}
	return nil
}

// Clear drops the chunks of all scopes that want selects, whether they are
// registered or not. Puts that began before are rejected. It returns when they
// are gone from the disk too. Errors are those of Delete.
func (s *Store) Clear(ctx context.Context, want func(storage.Scope) bool) (chunks int, bytes int64, err error) {
	if err := s.enter(); err != nil {
		return 0, 0, err
	}
	defer s.calls.Done()
	s.mu.Lock()
	selected := map[uint16]bool{}
	for _, sc := range s.scopes {
		if sc != nil && want(sc.Scope) {
			selected[sc.number] = true
			sc.clears++
		}
	}
	s.mu.Unlock()
	if len(selected) > 0 {
		bytes, err = s.walk(ctx, func(rec uint32, locs []segment.Location) []segment.Location {
			c := &s.dir.chunks.all[rec]
			if c.state == chunkFree || !selected[c.scope] {
				return locs
			}
			if c.state != chunkPending {
				chunks++
				s.st.Cleared++
			}
			return s.forget(rec, locs)
		})
	}
	unread := s.removeUnread(ctx, func(sc storage.Scope, _ keys.Key) bool { return want(sc) })
	return chunks, bytes, errors.Join(err, s.finishRemoval(ctx, nil), unread)
}

// Has implements tiered.Holder. It is no use of the chunk.
func (t *Tier) Has(key keys.Key, worst uint8) bool {
	n, _ := t.Match([]keys.Key{key}, worst)
	return n == 1
}
