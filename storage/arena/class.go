package arena

import "math/bits"

// classPages is the size class of a length, in pages: exact where a namespace
// registered that length, else the next of eight steps to each power of two,
// which wastes at most 1/8 beside the rounding to pages.
func classPages(length uint64, exact map[uint32]int) uint32 {
	p := uint32((length + PageBytes - 1) / PageBytes)
	if exact[p] > 0 || p <= 16 {
		return p
	}
	step := uint32(1) << (bits.Len32(p-1) - 4)
	return (p + step - 1) &^ (step - 1)
}

// geometry is how a space is cut. It is a pure function of the sizes, so a
// successor finds every slab from the classes in the records alone.
type geometry struct {
	unitPages   uint32 // pages of a unit
	unitsPerSeg uint32 // a power of two
	units       uint32 // in all segments; the last segment may be short
	maxOrder    int    // the longest run has 1 << maxOrder units
}

func newGeometry(segmentBytes, totalBytes int64) geometry {
	unit := max(segmentBytes/4096, minSegmentBytes)
	g := geometry{
		unitPages:   uint32(unit / PageBytes),
		unitsPerSeg: uint32(segmentBytes / unit),
		units:       uint32(totalBytes / unit),
	}
	g.maxOrder = bits.Len32(min(g.unitsPerSeg, g.units)) - 1
	return g
}

func (g geometry) segPages() uint32 { return g.unitPages * g.unitsPerSeg }

// runPages is the length of a run.
func (g geometry) runPages(order int) uint32 { return g.unitPages << order }

// order is the run that slots of a class are cut from: the shortest that
// wastes at most 1/8 at its end, else that with the smallest share of waste.
// ok is false where no run holds one slot.
func (g geometry) order(class uint32) (order int, ok bool) {
	if class == 0 || class > g.runPages(g.maxOrder) {
		return 0, false
	}
	best, bestWaste := -1, 1.0
	for o := 0; o <= g.maxOrder; o++ {
		run := g.runPages(o)
		if run < class {
			continue
		}
		waste := float64(run%class) / float64(run)
		if waste <= 1.0/8 {
			return o, true
		}
		if waste < bestWaste {
			best, bestWaste = o, waste
		}
	}
	return best, true
}
