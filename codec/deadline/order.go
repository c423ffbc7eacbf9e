package deadline

import (
	"cmp"
	"math"
	"slices"
)

// piece is a range that can be asked for: what it gains for each byte decides
// when.
type piece struct {
	density     float64
	object      int32
	layer, pass uint16
}

// density is what passes gain for each byte, so that none has a higher figure
// than the one before it, which has to come first: passes that gain little but
// open the way to one that gains much count as one with it. gains and sizes
// are those of the passes 1, 2, ...; the result is appended to dst.
func density(dst, gains, sizes []float64) []float64 {
	type block struct {
		gain, size float64
		passes     int
	}
	ratio := func(b block) float64 {
		if b.size == 0 {
			return math.Inf(1)
		}
		return b.gain / b.size
	}
	var stack [MaxPasses]block
	n := 0
	for i := range gains {
		stack[n] = block{gains[i], sizes[i], 1}
		n++
		for n > 1 && ratio(stack[n-1]) > ratio(stack[n-2]) {
			stack[n-2].gain += stack[n-1].gain
			stack[n-2].size += stack[n-1].size
			stack[n-2].passes += stack[n-1].passes
			n--
		}
	}
	for _, b := range stack[:n] {
		for range b.passes {
			dst = append(dst, ratio(b))
		}
	}
	return dst
}

// refinements of all objects, the best first; those without bytes are left out.
func refinements(o *Options) []piece {
	var out []piece
	var gains, sizes, ratios [MaxPasses]float64
	for i := range o.Objects {
		object := &o.Objects[i]
		for l := range o.Losses[0] {
			n := 0
			for p := 1; p < len(o.Losses); p++ {
				gains[n] = o.Losses.gain(p, l) * float64(object.Tokens)
				sizes[n] = float64(object.Bytes[p][l])
				n++
			}
			for k, d := range density(ratios[:0], gains[:n], sizes[:n]) {
				if sizes[k] > 0 {
					out = append(out, piece{d, int32(i), uint16(l), uint16(k + 1)})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b piece) int {
		return cmp.Or(cmp.Compare(b.density, a.density), cmp.Compare(a.pass, b.pass), cmp.Compare(a.object, b.object), cmp.Compare(a.layer, b.layer))
	})
	return out
}

// class is a layer's pass in all objects: choosing looks at these, not at every
// range.
type class struct {
	density float64
	gain    float64 // of all tokens
	pass    int
	layer   int
}

func classes(o *Options) []class {
	var out []class
	var gains, sizes, ratios [MaxPasses]float64
	for l := range o.Losses[0] {
		n := 0
		for p := 1; p < len(o.Losses); p++ {
			gains[n], sizes[n] = o.Losses.gain(p, l), 0
			for i := range o.Objects {
				sizes[n] += float64(o.Objects[i].Bytes[p][l])
			}
			n++
		}
		for k, d := range density(ratios[:0], gains[:n], sizes[:n]) {
			out = append(out, class{d, gains[k], k + 1, l})
		}
	}
	slices.SortFunc(out, func(a, b class) int {
		return cmp.Or(cmp.Compare(b.density, a.density), cmp.Compare(a.pass, b.pass), cmp.Compare(a.layer, b.layer))
	})
	return out
}
