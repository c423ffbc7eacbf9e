package tiertest

import (
	"context"
	"slices"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// memory is the simplest tier that is right, and with a flaw one that is
// wrong in one way.
type memory struct {
	mu     sync.Mutex
	layout storage.Layout
	room   int
	scopes [2]map[keys.Key]*memChunk
	order  []memName
	flaw   string
}

type memName struct {
	scope int
	key   keys.Key
}

type memChunk struct {
	visible []memPart
	pending map[uint8][]memPart
}

type memPart struct {
	d    part.Descriptor
	data []byte
}

type memTier struct {
	m     *memory
	scope int
}

func (m *memory) Tier(scope int) storage.Tier {
	if m.flaw == "one scope" {
		scope = 0
	}
	return memTier{m, scope}
}

func (m *memory) Close() {
	if m.flaw == "forgets" {
		m.scopes = [2]map[keys.Key]*memChunk{{}, {}}
	}
	for _, s := range m.scopes {
		for _, c := range s {
			clear(c.pending)
		}
	}
}

func (m *memory) Damage(scope int, id part.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scopes[scope][id.Chunk].visible[m.layout.Index(id)].data[5] ^= 1
}

func (memTier) Name() string { return "memory" }

func (t memTier) find(id part.ID) *memPart {
	c := t.m.scopes[t.scope][id.Chunk]
	if t.m.flaw == "never hits" || c == nil {
		return nil
	}
	i := t.m.layout.Index(id)
	if t.m.flaw == "shows what is incomplete" && c.visible == nil {
		for _, p := range c.pending {
			if p[i].data != nil {
				return &p[i]
			}
		}
	}
	if c.visible == nil {
		return nil
	}
	return &c.visible[i]
}

func (t memTier) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "get", "stopped")
	}
	p := t.find(id)
	if p == nil {
		return 0, fault.New(fault.Miss, "part", "not here")
	}
	if len(dst) < len(p.data) {
		return 0, fault.New(fault.Invalid, "get.length", "the buffer is too short").With(len(dst), len(p.data))
	}
	if err := part.Verify(&p.d, p.data); err != nil && t.m.flaw != "does not verify" {
		delete(t.m.scopes[t.scope], id.Chunk)
		return 0, err
	}
	*d = p.d
	d.Table = slices.Clone(d.Table)
	n := copy(dst, p.data)
	switch t.m.flaw {
	case "other bytes":
		dst[n/2]++
	case "writes beyond":
		if n < len(dst) {
			dst[n] = 0
		}
	}
	return n, nil
}

func (t memTier) Stat(_ context.Context, id part.ID, d *part.Descriptor) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	p := t.find(id)
	if p == nil {
		return fault.New(fault.Miss, "part", "not here")
	}
	*d = p.d
	d.Table = slices.Clone(d.Table)
	return nil
}

func (t memTier) Delete(_ context.Context, key keys.Key) (bool, error) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	c := t.m.scopes[t.scope][key]
	if t.m.flaw != "deletes nothing" {
		delete(t.m.scopes[t.scope], key)
	}
	return c != nil && c.visible != nil, nil
}

func (t memTier) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	i, err := t.m.layout.Admit(d, src)
	if t.m.flaw == "takes anything" && err != nil {
		i, err = max(i, 0), nil
	}
	if cause := ctx.Err(); err == nil && cause != nil {
		err = fault.Wrap(fault.Unavailable, cause, "put", "stopped")
	}
	if err != nil {
		return storage.Rejected, err
	}
	c := t.m.scopes[t.scope][d.ID.Chunk]
	if c == nil {
		c = &memChunk{pending: map[uint8][]memPart{}}
		t.m.scopes[t.scope][d.ID.Chunk] = c
	}
	have := c.visible
	if have == nil || have[0].d.Quality > d.Quality && t.m.flaw != "ignores quality" {
		have = c.pending[d.Quality]
	}
	if have == nil {
		have = make([]memPart, len(t.m.layout))
		c.pending[d.Quality] = have
	}
	for _, p := range have {
		if p.data != nil && (p.d.Ordinal != d.Ordinal || p.d.Tokens != d.Tokens || p.d.Parent != d.Parent) {
			return storage.Rejected, fault.New(fault.Invalid, "put.chunk", "parent, ordinal or tokens disagree with parts that are there")
		}
	}
	switch p := &have[i]; {
	case p.data != nil && slices.Equal(p.d.Table, d.Table):
		return storage.Duplicate, nil
	case p.data != nil && t.m.flaw != "last wins":
		return storage.Conflict, nil
	}
	have[i] = memPart{d: *d, data: slices.Clone(src)}
	have[i].d.Table = slices.Clone(d.Table)
	for _, p := range have {
		if p.data == nil {
			return storage.Kept, nil
		}
	}
	t.publish(d.ID.Chunk, c, have)
	return storage.Published, nil
}

func (t memTier) publish(key keys.Key, c *memChunk, have []memPart) {
	for q := range c.pending {
		if q >= have[0].d.Quality {
			delete(c.pending, q)
		}
	}
	c.visible = have
	name := memName{t.scope, key}
	t.m.order = append(slices.DeleteFunc(t.m.order, func(o memName) bool { return o == name }), name)
	if len(t.m.order) > t.m.room && t.m.flaw != "no budget" {
		old := t.m.order[0]
		delete(t.m.scopes[old.scope], old.key)
		t.m.order = t.m.order[1:]
	}
}

func memorySubject(flaw string) *Subject {
	layout := storage.Layout{
		{Group: 0, Span: 0, HeadGroup: 0, RawLength: 1024, Layers: 4},
		{Group: 0, Span: 0, HeadGroup: 1, RawLength: 1024, Layers: 4},
		{Group: 1, Span: 0, HeadGroup: 0, RawLength: 512, Layers: 1},
	}
	const chunks, size = 20, 2560
	var m *memory
	s := &Subject{Name: "memory", Layout: layout, Room: chunks * size, Least: chunks * size, Persistent: true}
	dirs := map[string]*memory{}
	s.Open = func(_ TB, dir string) Store {
		if dirs[dir] == nil {
			m = &memory{layout: layout, room: chunks, flaw: flaw, scopes: [2]map[keys.Key]*memChunk{{}, {}}}
			dirs[dir] = m
		}
		return dirs[dir]
	}
	return s
}
