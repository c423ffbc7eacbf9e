package tiered

import (
	"context"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// batcher is a store that counts in what batches it is given parts.
type batcher struct {
	*store
	batches []int
}

func (b *batcher) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	b.batches = append(b.batches, len(list))
	return PutParts(ctx, b.store, list)
}

// A chunk is written as one batch, and not at all where a part of it cannot be
// read.
func TestCopyBatch(t *testing.T) {
	front, back := newStore(), &batcher{store: newStore()}
	front.fill(t, 1, 2)
	var gate Gate
	c := chunkOf(1, front, back)
	n, err := c.copy(t.Context(), &gate)
	if err != nil || n != layout.Bytes() || !back.whole(t, 1) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if len(back.batches) != 1 || back.batches[0] != len(layout) {
		t.Errorf("batches of %v parts", back.batches)
	}
	if n, err := c.copy(t.Context(), &gate); n != 0 || err != nil {
		t.Errorf("again: %d bytes, %v", n, err)
	}
	front.before = func(_ context.Context, id part.ID) error {
		if id.HeadGroup == 1 {
			return fault.New(fault.Miss, "part", "evicted meanwhile")
		}
		return nil
	}
	c = chunkOf(2, front, back)
	if n, err := c.copy(t.Context(), &gate); n != 0 || !errors.Is(err, fault.Miss) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if len(back.parts) != len(layout) {
		t.Errorf("half a chunk was written: %d parts", len(back.parts))
	}
}

// The budget takes a chunk whole or not at all, and counts its parts.
func TestAdmissionOfBatch(t *testing.T) {
	budget := NewBudget(layout.Bytes()+600, nil)
	front, back := newStore(), &batcher{store: newStore()}
	front.fill(t, 1, 2)
	var gate Gate
	to := Admission(back, budget)
	c := chunkOf(1, front, to)
	if n, err := c.copy(t.Context(), &gate); err != nil || n != layout.Bytes() {
		t.Fatalf("%d bytes, %v", n, err)
	}
	c = chunkOf(2, front, to)
	if n, err := c.copy(t.Context(), &gate); n != 0 || !errors.Is(err, fault.Full) {
		t.Errorf("beyond the budget: %d bytes, %v", n, err)
	}
	if budget.Refused() != uint64(len(layout)) || len(back.batches) != 1 {
		t.Errorf("%d parts refused, %d batches", budget.Refused(), len(back.batches))
	}
}

// Parts beyond the bound of a batch go in several.
func TestCopyBatches(t *testing.T) {
	big := storage.Layout{{RawLength: batchBytes, Layers: 1}, {HeadGroup: 1, RawLength: 5000, Layers: 1}, {HeadGroup: 2, RawLength: 5000, Layers: 1}}
	back := &batcher{store: newStore()}
	c := Chunk{Layout: big, From: zeros{newStore()}, To: back}
	var gate Gate
	if n, err := c.copy(t.Context(), &gate); err != nil || n != big.Bytes() {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if len(back.batches) != 2 || back.batches[0] != 1 || back.batches[1] != 2 {
		t.Errorf("batches of %v parts", back.batches)
	}
}

// zeros has every part.
type zeros struct{ *store }

func (zeros) Get(_ context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	*d = part.Descriptor{ID: id}
	return len(dst), nil
}
