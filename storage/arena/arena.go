package arena

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/evict"
	"github.com/larderkv/larder/storage/internal/keyindex"
	"github.com/larderkv/larder/storage/internal/offheap"
)

// Arena is a host tier. See the package comment for invariants and locking.
type Arena struct {
	opt Options
	lay layout

	segs  []*memory
	sideM *memory
	side  *sidecar

	// mu guards everything below, and all records and entries. busy counts
	// work outside it that touches mapped memory; Close waits for it.
	mu     sync.Mutex
	idle   sync.Cond
	busy   int
	closed bool

	space  *space
	exact  map[uint32]int // classes of registered raw lengths, counted
	entMem *offheap.Array[entry]
	ent    []entry

	recFree, recHigh, recUsed uint32
	gen, genLimit             uint32

	index  *keyindex.Index
	policy evict.Policy
	names  names
	owners map[Owner]*owner
	// clears counts Clear calls; a grant remembers it.
	clears     uint64
	clearedAll uint64
	// releases goes up whenever room may have become available.
	releases   uint64
	pending    pendingQueue
	writeBytes int64 // of write segments

	st         Stats // counters and the gauges that cannot be derived
	prefaulted int64
	huge       *hugeReport
	scrubAt    uint32
	sink       uint32

	sampled  atomic.Uint64
	verified atomic.Uint64
	sums     sync.Pool // *[]uint64
}

// Open creates an arena with new memory.
func Open(opt Options) (*Arena, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	a := &Arena{opt: opt, lay: newLayout(opt.SegmentBytes, opt.Budget-opt.WriteReserve)}
	if err := a.create(); err != nil {
		_ = a.unmap()
		return nil, err
	}
	a.side.writeHeader(a.lay)
	a.recHigh, a.genLimit = 1, 1
	a.side.setCounter(highAt, a.recHigh)
	a.side.setCounter(genLimitAt, a.genLimit)
	a.space.freeAll()
	return a, nil
}

func (a *Arena) create() error {
	for i := range a.lay.segments() {
		size := min(a.lay.segmentBytes, a.lay.totalBytes-int64(i)*a.lay.segmentBytes)
		m, err := newMemory("larder-arena", size, a.opt.HugePages)
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "arena.budget", "no memory for segment %d of %d", i, a.lay.segments())
		}
		a.segs = append(a.segs, m)
		if a.opt.Prefault {
			n, err := m.populate()
			if err != nil {
				return fault.Wrap(fault.Unavailable, err, "arena.prefault", "no memory for segment %d of %d", i, a.lay.segments())
			}
			a.prefaulted += n
		}
		if err := m.finish(a.opt.Mode == Guarded); err != nil {
			return fault.Wrap(fault.Unavailable, err, "arena.mode", "guarded mode needs F_SEAL_FUTURE_WRITE (Linux 5.1)")
		}
	}
	m, err := newMemory("larder-sidecar", a.lay.sidecarBytes(), NoHugePages)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "arena.budget", "no memory for the sidecar")
	}
	a.sideM = m
	return a.prepare()
}

// prepare makes the tables beside the mapped memory.
func (a *Arena) prepare() (err error) {
	a.idle.L = &a.mu
	a.side = openSidecar(a.sideM.mem, a.lay)
	a.owners, a.exact = map[Owner]*owner{}, map[uint32]int{}
	a.names.init()
	a.sums.New = func() any { s := make([]uint64, 0, 128); return &s }
	mem := make([][]byte, len(a.segs))
	for i, m := range a.segs {
		mem[i] = m.mem
	}
	if a.space, err = newSpace(newGeometry(a.lay.segmentBytes, a.lay.totalBytes), 0, mem); err != nil {
		return err
	}
	if a.entMem, err = offheap.Map[entry](int(a.lay.records)); err != nil {
		return err
	}
	a.ent = a.entMem.All()
	if a.index, err = keyindex.New(); err != nil {
		return err
	}
	if a.policy, err = a.opt.Policy(int(a.lay.records)); err != nil {
		return fmt.Errorf("arena: policy: %w", err)
	}
	a.huge = newHugeReport(a.segs)
	return nil
}

// Close unmaps everything after waiting for work in progress. It leaves the
// sidecar as it is: a successor that holds duplicates of the descriptors can
// adopt the arena. Later calls answer Unavailable.
func (a *Arena) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	for a.busy > 0 {
		a.idle.Wait()
	}
	defer a.mu.Unlock()
	return a.unmap()
}

func (a *Arena) unmap() error {
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	for _, o := range a.owners {
		if o.write != nil {
			keep(o.write.close())
		}
	}
	a.owners = nil
	for _, m := range a.segs {
		keep(m.close())
	}
	if a.sideM != nil {
		keep(a.sideM.close())
	}
	if a.space != nil {
		keep(a.space.close())
	}
	if a.entMem != nil {
		keep(a.entMem.Close())
	}
	if a.index != nil {
		keep(a.index.Close())
	}
	if a.policy != nil {
		keep(a.policy.Close())
	}
	a.segs, a.sideM, a.side, a.ent = nil, nil, nil, nil
	return first
}

// leave ends work outside the lock that enter or pin began. The lock is held.
func (a *Arena) leave() {
	if a.busy--; a.busy == 0 {
		a.idle.Broadcast()
	}
}

func errClosed() error { return fault.New(fault.Unavailable, "", "the arena is closed") }

// Handles are the descriptors of an arena. They belong to the Arena and are
// closed with it; whoever passes them on duplicates them.
type Handles struct {
	// Segments in the order of the hand-over, with their sizes in bytes.
	Segments     []int
	SegmentBytes []int64
	// Sidecar is for a successor; clients never get it.
	Sidecar int
}

// Handles returns the descriptors.
func (a *Arena) Handles() Handles {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := Handles{Sidecar: -1}
	if a.closed {
		return h
	}
	h.Sidecar = a.sideM.fd
	for _, m := range a.segs {
		h.Segments = append(h.Segments, m.fd)
		h.SegmentBytes = append(h.SegmentBytes, int64(len(m.mem)))
	}
	return h
}

// nextPow2 rounds up to a power of two.
func nextPow2(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) }
