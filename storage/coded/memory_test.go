package coded

import (
	"context"
	"slices"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// memory is a tier that keeps what it gets, and says what it was asked.
type memory struct {
	mu      sync.Mutex
	parts   map[part.ID]storage.PartBytes
	deleted []keys.Key
	batches []int
	// beforePut, if set, is called by PutParts and may wait.
	beforePut func()
	// beforeDelete, likewise; its error is Delete's.
	beforeDelete func(context.Context) error
}

func newMemory() *memory { return &memory{parts: map[part.ID]storage.PartBytes{}} }

func (*memory) Name() string { return "memory" }

func (m *memory) at(id part.ID) (storage.PartBytes, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.parts[id]; ok {
		return p, nil
	}
	return storage.PartBytes{}, fault.New(fault.Miss, "part", "not here")
}

func (m *memory) Get(_ context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	p, err := m.at(id)
	if err != nil {
		return 0, err
	}
	*d = *p.Part
	d.Table = slices.Clone(d.Table)
	return copy(dst, p.Bytes), nil
}

func (m *memory) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	outs, err := m.PutParts(ctx, []storage.PartBytes{{Part: d, Bytes: src}})
	return outs[0], err
}

func (m *memory) PutParts(_ context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	if m.beforePut != nil {
		m.beforePut()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches = append(m.batches, len(list))
	outs := make([]storage.Outcome, len(list))
	for i, p := range list {
		d := *p.Part
		m.parts[d.ID] = storage.PartBytes{Part: &d, Bytes: slices.Clone(p.Bytes)}
		outs[i] = storage.Kept
	}
	return outs, nil
}

func (m *memory) Stat(_ context.Context, id part.ID, d *part.Descriptor) error {
	p, err := m.at(id)
	if err == nil {
		*d = *p.Part
	}
	return err
}

func (m *memory) Delete(ctx context.Context, key keys.Key) (bool, error) {
	if m.beforeDelete != nil {
		if err := m.beforeDelete(ctx); err != nil {
			return false, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted = append(m.deleted, key)
	for id := range m.parts {
		if id.Chunk == key {
			delete(m.parts, id)
		}
	}
	return true, nil
}

func (m *memory) Has(key keys.Key, worst uint8) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.parts {
		if id.Chunk == key {
			return p.Part.Quality <= worst
		}
	}
	return false
}
