package tiered

import (
	"errors"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

func TestAdmission(t *testing.T) {
	now := time.Unix(0, 0)
	b := NewBudget(3600, func() time.Time { return now }) // a byte a second
	s := newStore()
	tier := Admission(s, b)
	put := func(n byte, i int) (storage.Outcome, error) {
		d, bytes := one(t, n, i)
		return tier.Put(t.Context(), d, bytes)
	}
	for i := range 3 { // 1024 each
		if out, err := put(byte(i), 0); err != nil || out != storage.Kept {
			t.Fatal(i, out, err)
		}
		if i > 0 {
			continue
		}
		for range 9 { // costs nothing
			if out, err := put(0, 0); err != nil || out != storage.Duplicate {
				t.Errorf("a duplicate: %v, %v", out, err)
			}
		}
	}
	out, err := put(9, 0)
	if out != storage.Rejected || !errors.Is(err, fault.Full) {
		t.Fatalf("beyond the budget: %v, %v", out, err)
	}
	now = now.Add(495 * time.Second) // 528 are left, 1023 now
	if _, err = put(9, 0); !errors.Is(err, fault.Full) {
		t.Errorf("one byte too early: %v", err)
	}
	now = now.Add(time.Second)
	if _, err = put(9, 0); err != nil {
		t.Errorf("in time: %v", err)
	}
	now = now.Add(100 * time.Hour) // no more than an hour's adds up
	for i := range 4 {
		_, err = put(byte(20+i), 0)
		if (err != nil) != (i == 3) {
			t.Errorf("put %d after a long rest: %v", i, err)
		}
	}
	s.refuse = fault.New(fault.Full, "x", "full")
	now = now.Add(100 * time.Hour)
	for range 10 { // costs nothing
		_, _ = put(30, 0)
	}
	s.refuse = nil
	if _, err = put(30, 0); err != nil {
		t.Errorf("after refusals by the tier: %v", err)
	}
	if b.Refused() != 3 {
		t.Errorf("%d refused", b.Refused())
	}
	free := Admission(newStore(), NewBudget(0, nil))
	d, bytes := one(t, 1, 0)
	if _, err := free.Put(t.Context(), d, bytes); err != nil {
		t.Errorf("no limit: %v", err)
	}
	var got part.Descriptor
	if n, err := free.Get(t.Context(), d.ID, &got, bytes); err != nil || n != len(bytes) {
		t.Error(n, err)
	}
}

func TestSpread(t *testing.T) {
	stores := []*store{newStore(), newStore(), newStore()}
	list := []Weighted{{"a", 1, stores[0]}, {"b", 2, stores[1]}, {"c", 1, stores[2]}}
	tier, err := Spread(list)
	if err != nil {
		t.Fatal(err)
	}
	// Where keys go, with and without the third.
	two, err := Spread(list[:2])
	if err != nil {
		t.Fatal(err)
	}
	const n = 40000
	count := map[storage.Tier]int{}
	moved := 0
	for i := range n {
		key := keys.Key{byte(i), byte(i >> 8), byte(i >> 16), 0, 7}
		a, b := tier.(spread).of(&key), two.(spread).of(&key)
		count[a]++
		if a != b {
			moved++
			if a != storage.Tier(stores[2]) {
				t.Fatal("a key moved between tiers that stayed")
			}
		}
	}
	for i, share := range []float64{0.25, 0.5, 0.25} {
		if got := float64(count[stores[i]]) / n; got < share*0.95 || got > share*1.05 {
			t.Errorf("tier %d has %.3f of the keys, want %.2f", i, got, share)
		}
	}
	if moved != count[stores[2]] {
		t.Errorf("%d keys moved for a tier that has %d", moved, count[stores[2]])
	}
	for c := range byte(30) {
		for i := range layout {
			d, b := one(t, c, i)
			if _, err := tier.Put(t.Context(), d, b); err != nil {
				t.Fatal(err)
			}
			var got part.Descriptor
			buf := make([]byte, len(b))
			if _, err := tier.Get(t.Context(), d.ID, &got, buf); err != nil || string(buf) != string(b) {
				t.Fatalf("%v, or other bytes", err)
			}
			if err := tier.Stat(t.Context(), d.ID, &got); err != nil {
				t.Fatal(err)
			}
		}
		if ok, err := tier.Delete(t.Context(), keys.Key{c}); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for _, bad := range [][]Weighted{nil, {{"a", 0, stores[0]}}, {{"a", -1, stores[0]}}, {{"a", 1, stores[0]}, {"a", 1, stores[1]}}} {
		if _, err := Spread(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if one, _ := Spread(list[:1]); one.Name() != "fake" {
		t.Error(one.Name())
	}
}
