package tiered

import (
	"context"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var layout = storage.Layout{
	{HeadGroup: 0, RawLength: 1024, Layers: 4},
	{HeadGroup: 1, RawLength: 512, Layers: 2},
}

var scope = storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{2}}

func one(t testing.TB, n byte, i int) (*part.Descriptor, []byte) {
	t.Helper()
	p := layout[i]
	b := make([]byte, p.RawLength)
	for j := range b {
		b[j] = byte(j) ^ n ^ byte(i<<5)
	}
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keys.Key{n}}, Ordinal: uint32(n)}, p, b)
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

// store is a tier in memory. before, if set, is called by Get and may wait or
// fail.
type store struct {
	mu     sync.Mutex
	parts  map[part.ID]stored
	gets   int
	before func(context.Context, part.ID) error
	// beforePut, if set, is called by Put and may wait.
	beforePut func()
	refuse    error
}

type stored struct {
	d part.Descriptor
	b []byte
}

func newStore() *store { return &store{parts: map[part.ID]stored{}} }

func (s *store) fill(t testing.TB, chunks ...byte) {
	t.Helper()
	for _, n := range chunks {
		for i := range layout {
			d, b := one(t, n, i)
			if _, err := s.Put(t.Context(), d, b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// whole says whether all parts of the chunk are there, and right.
func (s *store) whole(t testing.TB, n byte) bool {
	t.Helper()
	for i := range layout {
		d, b := one(t, n, i)
		s.mu.Lock()
		got, ok := s.parts[d.ID]
		s.mu.Unlock()
		if !ok {
			return false
		}
		if string(got.b) != string(b) {
			t.Fatalf("other bytes of chunk %d", n)
		}
	}
	return true
}

func (s *store) Name() string { return "fake" }

func (s *store) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	if s.before != nil {
		if err := s.before(ctx, id); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	p, ok := s.parts[id]
	if !ok {
		return 0, fault.New(fault.Miss, "part", "not here")
	}
	*d = p.d
	return copy(dst, p.b), nil
}

func (s *store) Put(_ context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	if s.beforePut != nil {
		s.beforePut()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return storage.Rejected, s.refuse
	}
	if _, ok := s.parts[d.ID]; ok {
		return storage.Duplicate, nil
	}
	s.parts[d.ID] = stored{*d, slices.Clone(src)}
	return storage.Kept, nil
}

func (s *store) Stat(_ context.Context, id part.ID, d *part.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.parts[id]
	if !ok {
		return fault.New(fault.Miss, "part", "not here")
	}
	*d = p.d
	return nil
}

func (s *store) Delete(_ context.Context, key keys.Key) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.parts)
	for id := range s.parts {
		if id.Chunk == key {
			delete(s.parts, id)
		}
	}
	return len(s.parts) < n, nil
}

// holder is a store that knows what it has.
type holder struct{ *store }

func (h holder) Has(key keys.Key, _ uint8) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.parts[part.ID{Chunk: key}]
	return ok
}

// filler is a store that lends its memory.
type filler struct {
	*store
	fills int
}

func (f *filler) Fill(_ context.Context, id part.ID, fill func(*part.Descriptor, []byte) (int, error)) (storage.Outcome, error) {
	var d part.Descriptor
	dst := make([]byte, layout[id.HeadGroup].RawLength)
	if _, err := fill(&d, dst); err != nil {
		return storage.Rejected, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fills++
	f.parts[id] = stored{d, dst}
	return storage.Published, nil
}

func chunkOf(n byte, from, to storage.Tier) Chunk {
	return Chunk{Scope: scope, Key: keys.Key{n}, Layout: layout, From: from, To: to}
}
