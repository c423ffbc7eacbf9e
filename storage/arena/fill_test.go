package arena

import (
	"context"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

func TestFill(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, Options{Budget: 256 << 10, SegmentBytes: 128 << 10}, metaParts())
	defer w.end()
	tier := w.a.Tier(w.scope).(interface {
		storage.Tier
		Fill(context.Context, part.ID, func(*part.Descriptor, []byte) (int, error)) (storage.Outcome, error)
	})
	bring := func(n, i int, change func(*part.Descriptor, []byte)) (storage.Outcome, error) {
		d, b := tierPart(w, n, i)
		return tier.Fill(ctx, d.ID, func(got *part.Descriptor, dst []byte) (int, error) {
			if len(dst) != len(b) {
				t.Fatalf("memory for %d bytes, want %d", len(dst), len(b))
			}
			*got = *d
			k := copy(dst, b)
			change(got, dst)
			return k, nil
		})
	}
	same := func(*part.Descriptor, []byte) {}
	for what, c := range map[string]struct {
		kind   fault.Kind
		change func(*part.Descriptor, []byte)
	}{
		"other bytes":  {fault.Corrupt, func(_ *part.Descriptor, b []byte) { b[3]++ }},
		"broken seal":  {fault.Corrupt, func(d *part.Descriptor, _ []byte) { d.Ordinal++ }},
		"another part": {fault.Corrupt, func(d *part.Descriptor, _ []byte) { d.ID.Chunk[0]++; w.must(part.Seal(d)) }},
		"other coding": {fault.Miss, func(d *part.Descriptor, _ []byte) { d.Encoding = 7; w.must(part.Seal(d)) }},
	} {
		if out, err := bring(0, 0, c.change); out != storage.Rejected || !errors.Is(err, c.kind) {
			t.Errorf("%s: %v, %v", what, out, err)
		}
	}
	d, _ := tierPart(w, 0, 0)
	gone := errors.New("gone")
	if _, err := tier.Fill(ctx, d.ID, func(*part.Descriptor, []byte) (int, error) { return 0, gone }); !errors.Is(err, gone) {
		t.Errorf("a source that fails: %v", err)
	}
	bad := d.ID
	bad.HeadGroup = 99
	if _, err := tier.Fill(ctx, bad, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("a part that is not in the namespace: %v", err)
	}
	if st := w.a.Stats(); st.Used != 0 {
		t.Fatalf("rejected parts left %d bytes", st.Used)
	}
	last := len(w.spec.Parts) - 1
	for i := range w.spec.Parts {
		want := storage.Kept
		if i == last {
			want = storage.Published
			w.committing = 0
		}
		if out, err := bring(0, i, same); err != nil || out != want {
			t.Fatalf("part %d: %v, %v", i, out, err)
		}
	}
	for i := range w.spec.Parts {
		d, b := tierPart(w, 0, i)
		var got part.Descriptor
		buf := make([]byte, len(b))
		if _, err := tier.Get(ctx, d.ID, &got, buf); err != nil || string(buf) != string(b) || got.Checksum != d.Checksum {
			t.Errorf("part %d: %v, or other bytes", i, err)
		}
	}
	if out, err := tier.Fill(ctx, d.ID, nil); err != nil || out != storage.Duplicate {
		t.Errorf("a part that is there: %v, %v", out, err)
	}
	cold := w.a.Coldest(1, 10, nil)
	if len(cold) != 1 || cold[0].Key != keyOf(0) {
		t.Errorf("coldest: %+v", cold)
	}
	if cold = w.a.Coldest(0, 10, nil); len(cold) != 0 {
		t.Errorf("coldest of no bytes: %+v", cold)
	}
}

// The coldest come in the order of eviction.
func TestColdest(t *testing.T) {
	w := newWorld(t, Options{Budget: 1 << 20, SegmentBytes: 1 << 20}, metaParts())
	defer w.end()
	tier := w.a.Tier(w.scope)
	for n := range 4 {
		for i := range w.spec.Parts {
			d, b := tierPart(w, 10*n, i) // no chunk is another's parent
			if _, err := tier.Put(context.Background(), d, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A copy in the background is no use: chunk 1 stays the coldest.
	for i := range w.spec.Parts {
		d, b := tierPart(w, 10, i)
		var got part.Descriptor
		if _, err := w.a.Background(w.scope).Get(context.Background(), d.ID, &got, b); err != nil {
			t.Fatal(err)
		}
	}
	k := keyOf(0)
	w.a.Match(w.scope, k[:], 0, false, nil)
	var got []int
	for _, c := range w.a.Coldest(1<<20, 100, nil) {
		for n := range 4 {
			if c.Key == keyOf(10*n) {
				got = append(got, n)
			}
		}
	}
	if len(got) != 4 || got[0] != 1 || got[1] != 2 || got[2] != 3 || got[3] != 0 {
		t.Errorf("order %v, want 1 2 3 0", got)
	}
	if all := w.a.Coldest(1<<20, 2, nil); len(all) != 2 {
		t.Errorf("%d, at most 2 were asked for", len(all))
	}
}
