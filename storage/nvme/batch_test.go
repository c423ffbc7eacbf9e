package nvme

import (
	"bytes"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// wide is a chunk of many small parts.
var wide = storage.Layout{
	{HeadGroup: 0, RawLength: 192 << 10, Layers: 4}, {HeadGroup: 1, RawLength: 192 << 10, Layers: 4},
	{HeadGroup: 2, RawLength: 192 << 10, Layers: 4}, {HeadGroup: 3, RawLength: 192 << 10, Layers: 4},
	{HeadGroup: 4, RawLength: 192 << 10, Layers: 4}, {HeadGroup: 5, RawLength: 192 << 10, Layers: 4},
	{HeadGroup: 6, RawLength: 192 << 10, Layers: 4}, {HeadGroup: 7, RawLength: 192 << 10, Layers: 4},
}

func wideChunk(t *testing.T, n byte) (list []storage.PartBytes) {
	t.Helper()
	for i, p := range wide {
		b := bytes.Repeat([]byte{n, byte(i), 7, byte(i) ^ n}, int(p.RawLength)/4)
		d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keys.Key{n}}, Ordinal: uint32(n)}, p, b)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, storage.PartBytes{Part: d, Bytes: b})
	}
	return list
}

// A chunk that is put at once is one group, which is one write; it is what was
// put, and evicts as others do.
func TestPutParts(t *testing.T) {
	o := manual()
	o.Segment.Budget, o.Segment.SegmentBytes = 32<<20, 4<<20
	o.ForwardPercent = -1 // what is copied forward makes groups too
	s := open(t, t.TempDir(), o)
	defer s.Close()
	tier, err := s.Store.Tier(storage.Scope{Namespace: [32]byte{9}}, wide)
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	for c := range byte(n) {
		list := wideChunk(t, c)
		outs, err := tier.PutParts(t.Context(), list)
		if err != nil {
			t.Fatal(err)
		}
		for i, out := range outs {
			if want := storage.Kept; out != want && (out != storage.Published || i != len(outs)-1) {
				t.Fatalf("part %d: %v", i, out)
			}
		}
		var d part.Descriptor
		for i := range list {
			buf := make([]byte, len(list[i].Bytes))
			if k, err := tier.Get(t.Context(), list[i].Part.ID, &d, buf); err != nil || !bytes.Equal(buf[:k], list[i].Bytes) {
				t.Fatalf("chunk %d, part %d: %v, or other bytes", c, i, err)
			}
		}
		if outs, err := tier.PutParts(t.Context(), list); err != nil || outs[0] != storage.Duplicate || outs[7] != storage.Duplicate {
			t.Fatal(outs, err)
		}
	}
	st := s.Stats()
	if st.Segments.Groups != n {
		t.Errorf("%d groups for %d chunks", st.Segments.Groups, n)
	}
	if st.Evicted == 0 || st.Segments.Used > st.Segments.Budget {
		t.Errorf("%d chunks evicted, %d bytes used", st.Evicted, st.Segments.Used)
	}
}

// What is refused is refused before anything is written; parts that are there
// already are not written again.
func TestPutPartsRefused(t *testing.T) {
	o := manual()
	o.Segment.Budget, o.Segment.SegmentBytes = 32<<20, 4<<20
	o.PinnedPercent = 5 // one chunk, not two
	s := open(t, t.TempDir(), o)
	defer s.Close()
	tier, err := s.Store.Tier(storage.Scope{Namespace: [32]byte{9}}, wide)
	if err != nil {
		t.Fatal(err)
	}
	put := func(tier *Tier, list []storage.PartBytes, kind fault.Kind) {
		t.Helper()
		outs, err := tier.PutParts(t.Context(), list)
		if k, ok := fault.KindOf(err); !ok || k != kind {
			t.Errorf("%v, want %v", err, kind)
		}
		for i, out := range outs {
			if out != storage.Rejected {
				t.Errorf("part %d: %v", i, out)
			}
		}
	}
	two := wideChunk(t, 2)
	put(tier, append(wideChunk(t, 1)[:7], two[7]), fault.Invalid)
	flipped := wideChunk(t, 1)
	flipped[5].Bytes[9] ^= 1
	put(tier, flipped, fault.Corrupt)
	if st := s.Stats(); st.Parts != 0 || st.PutBytes != 0 {
		t.Errorf("%d parts, %d bytes", st.Parts, st.PutBytes)
	}
	if _, err := tier.Put(t.Context(), two[3].Part, two[3].Bytes); err != nil {
		t.Fatal(err)
	}
	outs, err := tier.PutParts(t.Context(), two)
	if err != nil || outs[3] != storage.Duplicate || outs[7] != storage.Published {
		t.Error(outs, err)
	}
	if st := s.Stats(); st.PutParts != uint64(len(wide)) || st.Segments.Groups != 2 {
		t.Errorf("%d parts written in %d groups", st.PutParts, st.Segments.Groups)
	}
	if _, err := tier.Pinned().PutParts(t.Context(), wideChunk(t, 3)); err != nil {
		t.Fatal(err)
	}
	put(tier.Pinned(), wideChunk(t, 4), fault.Full)
	if m, err := tier.Pin(t.Context(), []keys.Key{{2}}); !errors.Is(err, fault.Full) || m.Full != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	if st := s.Stats(); st.Pinned != 8*192<<10 || st.Waiting != 0 {
		t.Errorf("%d bytes are pinned, %d chunks wait for parts", st.Pinned, st.Waiting)
	}
}

// What a buffer has behind the part stays, also where the device writes whole
// pages into it: large ones begin on a page.
func TestGetLeavesTheRest(t *testing.T) {
	s := open(t, t.TempDir(), smallOptions())
	defer s.Close()
	putChunk(t, s.tier(0), 1)
	for i := range layout {
		want, data := one(t, 1, i, 0)
		for _, more := range []int{0, 1, 100, 4095, 4096, 40000} {
			b := bytes.Repeat([]byte{0xee}, 64<<10)[:len(data)+more]
			var d part.Descriptor
			n, err := s.tier(0).Get(t.Context(), want.ID, &d, b)
			if err != nil || n != len(data) || !bytes.Equal(b[:n], data) {
				t.Fatalf("part %d: %d bytes, %v, or others", i, n, err)
			}
			if bytes.Count(b[n:], []byte{0xee}) != more {
				t.Errorf("part %d: the %d bytes behind it were changed", i, more)
			}
		}
	}
}
