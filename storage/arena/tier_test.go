package arena

import (
	"context"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

func tierPart(w *world, n, i int) (*part.Descriptor, []byte) {
	p := w.spec.Parts[i]
	b := make([]byte, p.RawLength)
	pattern(b, keyOf(n), i, 0)
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keyOf(n)}, Parent: keyOf(n - 1), Ordinal: 4}, p, b)
	w.must(err)
	return d, b
}

func TestTier(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, Options{Budget: 256 << 10, SegmentBytes: 128 << 10}, metaParts())
	tier := w.a.Tier(w.scope)
	if tier.Name() != "host" {
		t.Error(tier.Name())
	}
	kind := func(what string, err error, want fault.Kind) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	d, b := tierPart(w, 0, 0)
	var got part.Descriptor

	kind("stat of nothing", tier.Stat(ctx, d.ID, &got), fault.Miss)
	_, err := tier.Put(ctx, d, b[1:])
	kind("short bytes", err, fault.Invalid)
	b[17]++
	_, err = tier.Put(ctx, d, b)
	kind("other bytes", err, fault.Corrupt)
	b[17]--
	bad := *d
	bad.Tokens++
	_, err = tier.Put(ctx, &bad, b)
	kind("broken seal", err, fault.Corrupt)
	bad = *d
	bad.Encoding = 9
	w.must(part.Seal(&bad))
	_, err = tier.Put(ctx, &bad, b)
	kind("unknown encoding", err, fault.Invalid)
	bad = *d
	bad.ID.HeadGroup = 77
	w.must(part.Seal(&bad))
	_, err = tier.Put(ctx, &bad, b)
	kind("part that is not in the namespace", err, fault.Invalid)
	bad = *d
	bad.Table, err = part.Checksums(nil, b, 4)
	w.must(err)
	w.must(part.Seal(&bad))
	_, err = tier.Put(ctx, &bad, b)
	kind("other number of layers", err, fault.Invalid)
	if st := w.a.Stats(); st.Used != 0 || st.PendingChunks != 0 {
		t.Fatalf("rejected parts left something: %+v", st)
	}

	for i := range w.spec.Parts {
		d, b := tierPart(w, 0, i)
		out, err := tier.Put(ctx, d, b)
		want := storage.Kept
		if i == len(w.spec.Parts)-1 {
			want = storage.Published
		} else {
			kind("stat of a part that waits", tier.Stat(ctx, d.ID, &got), fault.Miss)
		}
		if err != nil || out != want {
			t.Fatalf("part %d: %v %v", i, out, err)
		}
	}
	if out, err := tier.Put(ctx, d, b); err != nil || out != storage.Duplicate {
		t.Fatalf("%v %v", out, err)
	}
	// The descriptor comes back as it was, table and checksum included, also
	// where the table needs extensions.
	for i := range w.spec.Parts {
		d, b := tierPart(w, 0, i)
		w.must(tier.Stat(ctx, d.ID, &got))
		if string(got.AppendTo(nil)) != string(d.AppendTo(nil)) {
			t.Errorf("part %d: descriptor %+v, want %+v", i, got, *d)
		}
		buf := make([]byte, len(b)+5)
		n, err := tier.Get(ctx, d.ID, &got, buf)
		if err != nil || n != len(b) || string(buf[:n]) != string(b) {
			t.Errorf("part %d: %d bytes, %v", i, n, err)
		}
		_, err = tier.Get(ctx, d.ID, &got, buf[:n-1])
		kind("short buffer", err, fault.Invalid)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = tier.Get(cancelled, d.ID, &got, make([]byte, len(b)))
	kind("cancelled", err, fault.Unavailable)
	if ok, err := tier.Delete(ctx, d.ID.Chunk); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := tier.Delete(ctx, d.ID.Chunk); ok || err != nil {
		t.Fatal(ok, err)
	}
	_, err = tier.Get(ctx, d.ID, &got, make([]byte, len(b)))
	kind("deleted", err, fault.Miss)
	w.end()
}
