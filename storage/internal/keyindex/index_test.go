package keyindex

import (
	"math/rand/v2"
	"testing"
)

// The index is a map with few bits: also where hashes collide and clusters
// wrap around the end.
func TestIndex(t *testing.T) {
	ix, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ix.Close() }()
	r := rand.New(rand.NewPCG(1, 2))
	hashes := map[uint32]uint32{} // rec -> hash
	var recs []uint32
	next := uint32(1)
	for range 30000 {
		if len(recs) > 0 && r.IntN(5) < 2 {
			i := r.IntN(len(recs))
			ix.Remove(hashes[recs[i]], recs[i])
			delete(hashes, recs[i])
			recs[i] = recs[len(recs)-1]
			recs = recs[:len(recs)-1]
			continue
		}
		h := r.Uint32()
		switch r.IntN(4) {
		case 0:
			h = ^uint32(0) - h%4 // clusters at the end
		case 1:
			h = h % 64 << 20 // and elsewhere
		}
		if err := ix.Insert(h, next); err != nil {
			t.Fatal(err)
		}
		hashes[next] = h
		recs = append(recs, next)
		next++
	}
	if ix.Len != len(recs) {
		t.Fatalf("%d entries, expected %d", ix.Len, len(recs))
	}
	for rec, h := range hashes {
		if got := ix.Tab[ix.find(h, rec)]; got != (Entry{h, rec}) {
			t.Fatalf("record %d: %v", rec, got)
		}
	}
	for _, rec := range recs {
		ix.Remove(hashes[rec], rec)
	}
	for p, e := range ix.Tab {
		if e != (Entry{}) {
			t.Fatalf("position %d: %v", p, e)
		}
	}
}
