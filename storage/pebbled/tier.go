package pebbled

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Tier is the store as a tier, for one scope.
func (s *Store) Tier(scope storage.Scope, layout storage.Layout) storage.Tier {
	return tier{s, scope, layout}
}

type tier struct {
	s      *Store
	scope  storage.Scope
	layout storage.Layout
}

// Name implements storage.Tier.
func (tier) Name() string { return "pebbled" }

// Get implements storage.Tier.
func (t tier) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "get", "stopped")
	}
	n, c, err := t.read(id, d, dst)
	if k, _ := fault.KindOf(err); k == fault.Corrupt {
		clear(dst)
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		if !t.s.closed && t.s.chunks[c.name] == c {
			err = errors.Join(err, t.s.drop(c))
		}
	}
	return n, err
}

// Stat implements storage.Tier.
func (t tier) Stat(_ context.Context, id part.ID, d *part.Descriptor) error {
	_, _, err := t.read(id, d, nil)
	return err
}

// read decodes the descriptor, and unless dst is nil copies and verifies the
// bytes.
func (t tier) read(id part.ID, d *part.Descriptor, dst []byte) (n int, c *chunk, err error) {
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	c = t.s.chunks[name{t.scope, id.Chunk}]
	i := t.layout.Index(id)
	if t.s.closed || c == nil || i < 0 {
		return 0, c, fault.New(fault.Miss, "part", "not here")
	}
	v, closer, err := t.s.db.Get(valueKey(c.seq, i))
	if errors.Is(err, pebble.ErrNotFound) || pebble.IsCorruptionError(err) {
		return 0, c, fault.Wrap(fault.Corrupt, err, "pebbled", "the value is lost")
	}
	if err != nil {
		return 0, c, t.s.unavailable(err, "cannot read")
	}
	defer func(closer io.Closer) { err = errors.Join(err, closer.Close()) }(closer)
	if len(v) < 4 || uint64(binary.LittleEndian.Uint32(v)) > uint64(len(v)-4) {
		return 0, c, fault.New(fault.Corrupt, "pebbled", "the value is no part")
	}
	head := 4 + int(binary.LittleEndian.Uint32(v))
	if err := part.Decode(d, v[4:head]); err != nil || d.ID != id {
		return 0, c, fault.Wrap(fault.Corrupt, err, "pebbled", "the value is another part")
	}
	v = v[head:]
	if dst == nil {
		return len(v), c, nil
	}
	if len(dst) < len(v) {
		return 0, c, fault.New(fault.Invalid, "get.length", "the buffer is too short").With(len(dst), len(v))
	}
	copy(dst, v)
	return len(v), c, part.Verify(d, dst[:len(v)])
}

// Delete implements storage.Tier.
func (t tier) Delete(_ context.Context, key keys.Key) (bool, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.closed {
		return false, fault.New(fault.Unavailable, "pebbled", "closed")
	}
	n := name{t.scope, key}
	t.s.dropPending(n)
	c := t.s.chunks[n]
	if c == nil {
		return false, nil
	}
	return true, t.s.drop(c)
}

// Put implements storage.Tier.
func (t tier) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	i, err := t.layout.Admit(d, src)
	if cause := ctx.Err(); err == nil && cause != nil {
		err = fault.Wrap(fault.Unavailable, cause, "put", "stopped")
	}
	if err != nil {
		return storage.Rejected, err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.closed {
		return storage.Rejected, fault.New(fault.Unavailable, "pebbled", "closed")
	}
	out, err := t.put(i, d, src)
	if err != nil {
		return storage.Rejected, err
	}
	return out, nil
}

func (t tier) put(i int, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	s, n := t.s, name{t.scope, d.ID.Chunk}
	if c := s.chunks[n]; c != nil && c.quality <= d.Quality {
		return t.compare(c, i, d)
	}
	a := s.pending[n][d.Quality]
	switch {
	case a == nil:
	case a.first.Parent != d.Parent || a.first.Ordinal != d.Ordinal || a.first.Tokens != d.Tokens:
		return 0, fault.New(fault.Invalid, "put.chunk", "parent, ordinal or tokens disagree with parts that are there")
	case a.values[i] == nil:
	case slices.Equal(a.tables[i], d.Table):
		return storage.Duplicate, nil
	default:
		return storage.Conflict, nil
	}
	v := encode(d, src)
	if err := s.room(int64(len(v))); err != nil {
		return 0, err
	}
	if a == nil {
		a = &assembly{first: *d, values: make([][]byte, len(t.layout)), tables: make([][]uint64, len(t.layout))}
		if s.pending[n] == nil {
			s.pending[n] = map[uint8]*assembly{}
		}
		s.pending[n][d.Quality] = a
	}
	a.values[i], a.tables[i] = v, slices.Clone(d.Table)
	a.have++
	a.bytes += int64(len(v))
	s.used += int64(len(v))
	if a.have < len(t.layout) {
		return storage.Kept, nil
	}
	if err := s.publish(n, d.Quality, a); err != nil {
		s.dropPending(n)
		return 0, err
	}
	return storage.Published, nil
}

// compare says what a part is to the visible chunk's.
func (t tier) compare(c *chunk, i int, d *part.Descriptor) (storage.Outcome, error) {
	v, closer, err := t.s.db.Get(valueKey(c.seq, i))
	if err != nil {
		return 0, t.s.unavailable(err, "cannot read what is there")
	}
	defer func() { _ = closer.Close() }()
	var have part.Descriptor
	if len(v) >= 4+d.Size() && part.Decode(&have, v[4:4+d.Size()]) == nil && slices.Equal(have.Table, d.Table) {
		return storage.Duplicate, nil
	}
	return storage.Conflict, nil
}
