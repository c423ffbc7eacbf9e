package tiered

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

// disk is a holder that can be off.
type disk struct {
	holder
	off atomic.Bool
}

func newDisk() *disk { return &disk{holder: holder{newStore()}} }

func (d *disk) Off() bool { return d.off.Load() }

func (d *disk) Match(list []keys.Key, _ uint8) (int, uint8) {
	for i, k := range list {
		if d.off.Load() || !d.Has(k, 255) {
			return i, 0
		}
	}
	return len(list), 0
}

func spreadOf(t *testing.T, list ...Weighted[*disk]) *Spread[*disk] {
	t.Helper()
	s, err := NewSpread(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each device has its share; a device more moves no more than its own.
func TestSpreadShares(t *testing.T) {
	disks := []*disk{newDisk(), newDisk(), newDisk()}
	list := []Weighted[*disk]{{"a", 1, disks[0]}, {"b", 2, disks[1]}, {"c", 1, disks[2]}}
	three, two := spreadOf(t, list...), spreadOf(t, list[:2]...)
	const n = 40000
	count := map[*disk]int{}
	for i := range n {
		key := keys.Key{byte(i), byte(i >> 8), byte(i >> 16), 0, 7}
		a, _ := three.Of(key)
		b, _ := two.Of(key)
		count[a]++
		if a != b && a != disks[2] {
			t.Fatal("a key moved between devices that stayed")
		}
		// The share of a device that is off goes where it would without it.
		disks[2].off.Store(true)
		if c, _ := three.Of(key); c != b {
			t.Fatal("a key has another place while the third is off than without it")
		}
		disks[2].off.Store(false)
	}
	for i, share := range []float64{0.25, 0.5, 0.25} {
		if got := float64(count[disks[i]]) / n; got < share*0.95 || got > share*1.05 {
			t.Errorf("device %d has %.3f of the keys, want %.2f", i, got, share)
		}
	}
	for _, bad := range [][]Weighted[*disk]{nil, {{"a", 0, disks[0]}}, {{"a", -1, disks[0]}}, {{"a", 1, disks[0]}, {"a", 1, disks[1]}}} {
		if _, err := NewSpread(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// All parts of a chunk lie on one device; what was written under other weights
// is found where it is; a device that is off costs its own chunks only.
func TestSpreadFinds(t *testing.T) {
	disks := []*disk{newDisk(), newDisk(), newDisk()}
	list := []Weighted[*disk]{{"a", 1, disks[0]}, {"b", 1, disks[1]}, {"c", 1, disks[2]}}
	s := spreadOf(t, list...)
	const n = 60
	var all []keys.Key
	for c := range byte(n) {
		for i := range layout {
			d, b := one(t, c, i)
			if _, err := s.Put(t.Context(), d, b); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, keys.Key{c})
	}
	read := func(s *Spread[*disk], c byte) bool {
		t.Helper()
		hits := 0
		for i := range layout {
			d, b := one(t, c, i)
			var got part.Descriptor
			buf := make([]byte, len(b))
			_, err := s.Get(t.Context(), d.ID, &got, buf)
			if err == nil && string(buf) != string(b) {
				t.Fatal("other bytes")
			}
			if stat := s.Stat(t.Context(), d.ID, &got); errors.Is(stat, fault.Miss) != errors.Is(err, fault.Miss) {
				t.Fatalf("get: %v, stat: %v", err, stat)
			}
			if err == nil {
				hits++
			}
		}
		if hits != 0 && hits != len(layout) {
			t.Fatalf("half of chunk %d is there", c)
		}
		return hits > 0
	}
	if got, _ := s.Match(all, 255); got != n {
		t.Errorf("%d chunks match", got)
	}
	if allocs := testing.AllocsPerRun(10, func() { s.Match(all, 255) }); allocs != 0 {
		t.Errorf("a match allocates %v times", allocs)
	}
	list[0].Weight = 100
	moved := spreadOf(t, list...)
	if got, _ := moved.Match(all, 255); got != n {
		t.Errorf("%d chunks match under other weights", got)
	}
	for c := range byte(n) {
		if !read(s, c) || !read(moved, c) {
			t.Errorf("chunk %d is not found", c)
		}
	}
	first, _ := s.Of(all[0])
	first.off.Store(true)
	if got, _ := s.Match(all, 255); got != 0 {
		t.Errorf("%d chunks match, the first one's device is off", got)
	}
	lost := 0
	for _, k := range all {
		if !s.Has(k, 255) {
			lost++
		}
	}
	if lost == 0 || lost > n/2 {
		t.Errorf("%d of %d chunks are lost with one of three devices", lost, n)
	}
	d, b := one(t, 0, 0) // its share goes to another
	if _, err := s.Put(t.Context(), d, b); err != nil || !s.Has(all[0], 255) {
		t.Errorf("put while its device is off: %v", err)
	}
	first.off.Store(false)
	if s.Off() {
		t.Error("off, with three that are on")
	}
	for _, k := range all {
		if ok, err := moved.Delete(t.Context(), k); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if s.Has(k, 255) {
			t.Error("deleted, and still there")
		}
	}
	for _, d := range disks {
		d.off.Store(true)
	}
	if !s.Off() {
		t.Error("on, with all of them off")
	}
	if one := spreadOf(t, list[:1]...); one.Name() != "fake" {
		t.Error(one.Name())
	}
}

// graded is a disk whose chunks are of one quality.
type graded struct {
	*disk
	quality uint8
}

func (g graded) Match(list []keys.Key, worst uint8) (int, uint8) {
	if g.quality > worst {
		return 0, 0
	}
	n, _ := g.disk.Match(list, worst)
	return n, g.quality
}

// Of two that have a chunk, since one was off when it was written again, the
// better one is read: it is the one that a match for exact bytes has found.
func TestSpreadBest(t *testing.T) {
	worse, better := graded{newDisk(), 3}, graded{newDisk(), 0}
	s, err := NewSpread([]Weighted[graded]{{"a", 1, worse}, {"b", 1, better}})
	if err != nil {
		t.Fatal(err)
	}
	homes := map[graded]int{}
	for n := range byte(20) {
		key := keys.Key{n}
		home, _ := s.Of(key)
		homes[home]++
		worse.fill(t, n)
		if q, ok := s.Of(key); !ok || q != worse {
			t.Errorf("chunk %d is not found", n)
		}
		if got, _ := s.Match([]keys.Key{key}, 0); got != 0 {
			t.Errorf("chunk %d matches for exact bytes", n)
		}
		better.fill(t, n)
		if q, ok := s.Of(key); !ok || q != better {
			t.Errorf("the worse one of two is read for chunk %d", n)
		}
		if got, q := s.Match([]keys.Key{key}, 255); got != 1 || q != 0 {
			t.Errorf("chunk %d matches with quality %d", n, q)
		}
	}
	if len(homes) != 2 {
		t.Error("all chunks belong on one device")
	}
}
