package tiered

import (
	"errors"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
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

// What would be refused is known before it is brought, and counts once; asking
// costs nothing of the budget.
func TestAllows(t *testing.T) {
	b := NewBudget(1000, func() time.Time { return time.Unix(0, 0) })
	a := Admission(newStore(), b)
	for range 3 {
		if !a.Allows(1000) {
			t.Fatal("asking took something of the budget")
		}
	}
	if a.Allows(1001) || b.Refused() != 1 {
		t.Errorf("%d refused", b.Refused())
	}
	if !Admission(newStore(), NewBudget(0, nil)).Allows(1 << 40) {
		t.Error("no limit refused something")
	}
}
