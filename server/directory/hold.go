package directory

import (
	"container/heap"
	"slices"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

// Hold keeps chunks from being evicted until its deadline.
type Hold struct {
	ID uint64
	// Refs are the held chunks in prompt order. Not to be changed. Once the
	// hold has ended they may be stale, which the arena recognises. A zero
	// reference is a chunk that lies below the host tier; it is not held.
	Refs []arena.ChunkRef
	// Keys of the chunks, where any lies below; else nil.
	Keys []keys.Key
	// Quality is the worst among them, as the match was told. A chunk that lies
	// below may be another one by the time that it is brought; a worse one must
	// not be.
	Quality uint8

	instance *Instance
	deadline int64
	index    int // in the heap; -1 once ended
}

// NoHold as a duration asks for a match without a hold.
const NoHold = time.Duration(-1)

func (d *Directory) clamp(want time.Duration) time.Duration {
	if want <= 0 {
		return d.options.HoldDefault
	}
	return min(want, d.options.HoldMax)
}

// add registers a hold on refs, whose pins it takes over.
func (d *Directory) add(in *Instance, refs []arena.ChunkRef, m Matched, ks []byte, want time.Duration) *Hold {
	h := &Hold{
		Refs: refs, Quality: m.Quality, instance: in,
		deadline: d.options.Clock.MonotonicNanos() + int64(d.clamp(want)),
	}
	if slices.ContainsFunc(m.Runs, func(r Run) bool { return !r.Host }) {
		list, _ := keys.FromList(ks) // the session has checked the length
		h.Keys = list[:len(refs)]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.sessions == 0 || len(in.holds) >= d.options.MaxHolds {
		return nil
	}
	d.nextHold++
	h.ID = d.nextHold
	in.holds[h.ID] = h
	heap.Push(&d.byDeadline, h)
	return h
}

// remove forgets a hold; the caller returns the pins after unlocking.
func (d *Directory) remove(h *Hold) {
	delete(h.instance.holds, h.ID)
	heap.Remove(&d.byDeadline, h.index)
}

// Hold finds a hold of the instance. One that is gone, or another's, is a
// MISS.
func (d *Directory) Hold(in *Instance, id uint64) (*Hold, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := in.holds[id]; h != nil {
		return h, nil
	}
	return nil, missing(id)
}

func missing(id uint64) error {
	return fault.New(fault.Miss, "hold_id", "no such hold, or it has ended").With(id, nil)
}

// Renew moves a hold's deadline to want from now, want as in Match, and
// returns it.
func (d *Directory) Renew(in *Instance, id uint64, want time.Duration) (deadline int64, err error) {
	now := d.options.Clock.MonotonicNanos()
	d.mu.Lock()
	defer d.mu.Unlock()
	h := in.holds[id]
	if h == nil || h.deadline <= now {
		return 0, missing(id)
	}
	h.deadline = now + int64(d.clamp(want))
	heap.Fix(&d.byDeadline, h.index)
	return h.deadline, nil
}

// End ends holds of the instance; unknown ones are ignored.
func (d *Directory) End(in *Instance, ids []uint64) {
	for _, id := range ids {
		d.mu.Lock()
		h := in.holds[id]
		if h != nil {
			d.remove(h)
		}
		d.mu.Unlock()
		if h != nil {
			d.options.Arena.Unhold(h.Refs)
		}
	}
}

// Expire ends the holds whose deadline is not after now, and says how many.
func (d *Directory) Expire(now int64) int {
	n := 0
	for {
		d.mu.Lock()
		if len(d.byDeadline) == 0 || d.byDeadline[0].deadline > now {
			d.mu.Unlock()
			return n
		}
		h := d.byDeadline[0]
		d.remove(h)
		d.mu.Unlock()
		d.options.Arena.Unhold(h.Refs)
		n++
	}
}

// deadlines is a heap of holds, the earliest first.
type deadlines []*Hold

func (q deadlines) Len() int           { return len(q) }
func (q deadlines) Less(i, j int) bool { return q[i].deadline < q[j].deadline }
func (q deadlines) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *deadlines) Push(x any) {
	h := x.(*Hold)
	h.index = len(*q)
	*q = append(*q, h)
}

func (q *deadlines) Pop() any {
	old := *q
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	h.index = -1
	return h
}
