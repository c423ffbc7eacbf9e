package offheap

import "testing"

func TestArray(t *testing.T) {
	a, err := Map[[3]uint32](1 << 30) // far more than is touched
	if err != nil {
		t.Fatal(err)
	}
	all := a.All()
	all[0][2], all[len(all)-1][0] = 1, 2
	if len(all) != 1<<30 || all[0] != [3]uint32{0, 0, 1} || all[len(all)-1] != [3]uint32{2} || all[1<<29] != ([3]uint32{}) {
		t.Fatal("values are not kept, or not zero at first")
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if a.All() != nil {
		t.Fatal("values after Close")
	}
}

func TestLimits(t *testing.T) {
	for _, n := range []int{-1, 0, 1 << 50} {
		if _, err := Map[uint64](n); err == nil {
			t.Errorf("%d values", n)
		}
	}
}
