package arena

// runs is the free store of a space: a buddy allocator over units. A free run
// of order o has 1<<o units and starts at a multiple of its length within its
// segment; two free buddies are always joined. So an emptied slab serves any
// class again, and a run that is wanted can be named by any unit in it.
type runs struct {
	g geometry
	// order of the free run that starts at a unit, or -1.
	order      []int8
	next, prev []uint32 // unit+1; 0 = end
	head       [33]uint32
}

// newRuns has nothing free.
func newRuns(g geometry) *runs {
	r := &runs{g: g, order: make([]int8, g.units), next: make([]uint32, g.units), prev: make([]uint32, g.units)}
	for i := range r.order {
		r.order[i] = -1
	}
	return r
}

// put frees a run.
func (r *runs) put(unit uint32, order int) {
	for order < r.g.maxOrder {
		buddy := unit ^ 1<<order
		if buddy >= r.g.units || r.order[buddy] != int8(order) {
			break
		}
		r.unlink(buddy)
		unit &^= 1 << order
		order++
	}
	r.link(unit, order)
}

// take removes a free run of that order, splitting a longer one if needed.
func (r *runs) take(order int) (unit uint32, ok bool) {
	o := order
	for o <= r.g.maxOrder && r.head[o] == 0 {
		o++
	}
	if o > r.g.maxOrder {
		return 0, false
	}
	unit = r.head[o] - 1
	r.unlink(unit)
	for ; o > order; o-- {
		r.link(unit+1<<(o-1), o-1)
	}
	return unit, true
}

func (r *runs) link(unit uint32, order int) {
	h := r.head[order]
	r.order[unit], r.next[unit], r.prev[unit] = int8(order), h, 0
	if h != 0 {
		r.prev[h-1] = unit + 1
	}
	r.head[order] = unit + 1
}

func (r *runs) unlink(unit uint32) {
	n, p := r.next[unit], r.prev[unit]
	if p != 0 {
		r.next[p-1] = n
	} else {
		r.head[r.order[unit]] = n
	}
	if n != 0 {
		r.prev[n-1] = p
	}
	r.order[unit] = -1
}
