package tiered

import (
	"context"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// joined is a store whose parts belong together, so many from each whose number
// is a multiple.
type joined struct {
	*batcher
	n int
	// asked are how many parts had memory in each GetParts.
	asked []int
	err   error
}

func (j *joined) Together(parts storage.Layout) int {
	if int(parts[0].HeadGroup)%j.n == 0 && len(parts) >= j.n {
		return j.n
	}
	return 1
}

func (j *joined) GetParts(ctx context.Context, ids []part.ID, ds []*part.Descriptor, dsts [][]byte) error {
	asked := 0
	for i, dst := range dsts {
		if dst == nil {
			continue
		}
		asked++
		if _, err := j.Get(ctx, ids[i], ds[i], dst); err != nil {
			return err
		}
	}
	j.asked = append(j.asked, asked)
	return j.err
}

// has is a filler that does not ask for the parts that it has.
type has struct {
	*filler
	refuse int // the fill of this number finds no room
}

func (h *has) Fill(ctx context.Context, id part.ID, fill func(*part.Descriptor, []byte) (int, error)) (storage.Outcome, error) {
	if _, ok := h.parts[id]; ok {
		return storage.Duplicate, nil
	}
	if h.refuse--; h.refuse == 0 {
		return storage.Rejected, fault.New(fault.Full, "test", "no room")
	}
	return h.filler.Fill(ctx, id, fill)
}

// What belongs together is got at once, into memory of its own; what is there
// already is not asked for, and where one finds no room, or the getting fails,
// nothing of it is kept.
func TestFillTogether(t *testing.T) {
	back := &joined{batcher: &batcher{store: newStore()}, n: 2}
	back.fill(t, 1, 2, 3, 4)
	var gate Gate
	front := &has{filler: &filler{store: newStore()}}
	copyUp := func(n byte) (int64, error) {
		c := chunkOf(n, back, front)
		return c.copy(t.Context(), &gate)
	}
	if n, err := copyUp(1); err != nil || n != layout.Bytes() || !front.whole(t, 1) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	for i := range layout {
		d, b := one(t, 2, i)
		if i == 0 {
			front.parts[d.ID] = stored{*d, b}
		}
	}
	if n, err := copyUp(2); err != nil || n != int64(layout[1].RawLength) || !front.whole(t, 2) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if len(back.asked) != 2 || back.asked[0] != 2 || back.asked[1] != 1 {
		t.Errorf("asked for %v", back.asked)
	}
	before := len(front.parts)
	front.refuse = 2
	if n, err := copyUp(3); n != 0 || !errors.Is(err, fault.Full) {
		t.Errorf("%d bytes, %v", n, err)
	}
	back.err = fault.New(fault.Corrupt, "test", "damaged")
	if n, err := copyUp(4); n != 0 || !errors.Is(err, fault.Corrupt) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if len(front.parts) != before {
		t.Error("something of a failed one was kept")
	}
}

// What belongs together is put in one batch, however large, and shares it only
// within the bound.
func TestPutTogether(t *testing.T) {
	const big = batchBytes / 2
	list := storage.Layout{}
	for i := range uint16(6) {
		size := uint64(5000)
		if i/2 == 1 {
			size = big + 1
		}
		list = append(list, storage.PartSpec{HeadGroup: i, RawLength: size, Layers: 1})
	}
	back := &joined{batcher: &batcher{store: newStore()}, n: 2}
	c := Chunk{Layout: list, From: zeros{newStore()}, To: back}
	var gate Gate
	if n, err := c.copy(t.Context(), &gate); err != nil || n != list.Bytes() {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if len(back.batches) != 3 || back.batches[0] != 2 || back.batches[1] != 2 || back.batches[2] != 2 {
		t.Errorf("batches of %v parts", back.batches)
	}
}
