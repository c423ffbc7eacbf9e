package evict

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The model is a slice, coldest first.
func TestLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const capacity = 12
		p, err := NewLRU(capacity)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var model []uint32
		pick := func(present bool) (uint32, bool) {
			var from []uint32
			for r := uint32(1); r <= capacity; r++ {
				if slices.Contains(model, r) == present {
					from = append(from, r)
				}
			}
			if len(from) == 0 {
				return 0, false
			}
			return rapid.SampledFrom(from).Draw(t, "ref"), true
		}
		without := func(r uint32) []uint32 {
			return slices.DeleteFunc(slices.Clone(model), func(x uint32) bool { return x == r })
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				if r, ok := pick(false); ok {
					p.Add(r)
					model = append(model, r)
				}
			},
			"add below": func(*rapid.T) {
				above, ok := pick(true)
				if r, absent := pick(false); ok && absent {
					p.AddBelow(r, above)
					model = slices.Insert(model, slices.Index(model, above), r)
				}
			},
			"touch": func(*rapid.T) {
				if r, ok := pick(true); ok {
					p.Touch(r)
					model = append(without(r), r)
				}
			},
			"remove": func(*rapid.T) {
				if r, ok := pick(true); ok {
					p.Remove(r)
					model = without(r)
				}
			},
			"": func(t *rapid.T) {
				dst := make([]uint32, rapid.IntRange(0, capacity+1).Draw(t, "n"))
				n := p.Coldest(dst)
				if want := model[:min(len(model), len(dst))]; !slices.Equal(dst[:n], want) || p.Len() != len(model) {
					t.Fatalf("coldest %v of %d, want %v of %d", dst[:n], p.Len(), want, len(model))
				}
			},
		})
	})
}
