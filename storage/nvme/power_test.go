package nvme

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// machine is a host with a disk of its own: the segments and the index lose
// power at the same instant.
type machine struct {
	segments *simfs.FS
	index    *vfs.MemFS
	rng      *rand.Rand

	// left operations of the device until the power is cut; 0 = it stays.
	left atomic.Int64
	// flaky: one operation of the segments in so many fails. ops counts them; after
	// one, a segment may be broken that was never synced.
	flaky, ops atomic.Int64

	mu sync.Mutex
	// synced pages of segments, as the store was told.
	synced map[uint64]uint32
	// next is the machine after the cut, and durable what was synced at it.
	next    *machine
	durable map[uint64]uint32
}

func newMachine(seed uint64) *machine {
	m := &machine{segments: simfs.New(64 << 20), index: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 0)), synced: map[uint64]uint32{}}
	return m.wired()
}

func (m *machine) wired() *machine {
	m.segments.Inject(func(simfs.Op) error {
		m.op()
		if n := m.flaky.Load(); n > 0 && m.ops.Add(1)%n == 0 {
			return unix.EIO
		}
		return nil
	})
	return m
}

func (m *machine) op() {
	if m.left.Load() > 0 && m.left.Add(-1) == 0 {
		m.cut()
	}
}

// cut cuts the power, unless it is off.
func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.next != nil {
		return
	}
	m.durable = maps.Clone(m.synced)
	n := &machine{rng: m.rng, synced: map[uint64]uint32{}}
	// One instant for both, whatever the index's goroutines and the store's are at.
	n.segments = m.segments.Crash(m.rng, func() {
		n.index = m.index.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[m.rng.IntN(3)], RNG: m.rng})
	})
	m.next = n.wired()
}

// killed is the machine when its process was killed: all that was written is
// there.
func (m *machine) killed() *machine {
	n := &machine{rng: m.rng, synced: m.synced}
	n.segments = m.segments.Kill(func() {
		n.index = m.index.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: m.rng})
	})
	return n.wired()
}

func (m *machine) isCut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next != nil
}

func (m *machine) told(sequence uint64, page uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced[sequence] = page
}

// start opens the store.
func (m *machine) start() (*Store, Report, error) {
	o := manual()
	o.Segment.FS, o.Segment.Durable = m.segments, m.told
	o.Segment.Lanes, o.Segment.SegmentBytes, o.Segment.Reserve = 2, 128<<10, 1
	o.ForwardPercent, o.MaxErrors = 30, 1<<30
	o.IndexFS = errorfs.Wrap(m.index, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			m.op()
		}
		return nil
	}))
	return Open(context.Background(), "/tier", o)
}

func (m *machine) open(t interface{ Fatalf(string, ...any) }) *Store {
	s, _, err := m.start()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// promised is a chunk that was acknowledged.
type promised struct {
	at [3]segment.Location
	// durable parts were there when the store was opened: in sealed segments.
	durable [3]bool
}

// powerCounts are over all runs: a test that met none of one shows nothing of it.
type powerCounts struct{ hits, cuts, midway, lost, deleted, evicted, errors, forwarded, pinned int }

// powerWorld is a store on such a machine, and what it promised.
type powerWorld struct {
	*powerCounts
	m      *machine
	s      *Store
	tier   *Tier
	next   int
	chunks map[int]*promised
	gone   map[int]bool // deleted, and told so
	// flaky: the device may fail in this run, so bytes may be gone that are named.
	flaky bool
}

func (w *powerWorld) open(t *rapid.T, m *machine) {
	w.m, w.s = m, m.open(t)
	tier, err := w.s.Tier(scopeOf(0), layout)
	if err != nil {
		t.Fatalf("%v", err)
	}
	w.tier = tier
}

// locate notes where everything is; what the store does not know any more was
// evicted.
func (w *powerWorld) locate() {
	for n, c := range w.chunks {
		for i := range layout {
			d, _, _ := make1(n, i, 0)
			f, err := w.tier.locate(d.ID, false)
			if err != nil {
				delete(w.chunks, n)
				w.evicted++
				break
			}
			if c.at[i] != f.location {
				c.at[i], c.durable[i] = f.location, false
			}
		}
	}
}

// do runs an operation that may be cut short.
func (w *powerWorld) do(t *rapid.T, op func() error) {
	w.locate()
	if rapid.IntRange(0, 5).Draw(t, "cut") == 0 {
		w.m.left.Store(int64(rapid.IntRange(1, 25).Draw(t, "after")))
	}
	err := op()
	if w.m.isCut() {
		w.midway++
		w.afterCut(t)
		return
	}
	w.m.left.Store(0)
	if err != nil && !errors.Is(err, fault.Full) && (w.m.flaky.Load() == 0 || !errors.Is(err, fault.Unavailable)) {
		t.Fatalf("%v", err)
	}
}

func (w *powerWorld) put(t *rapid.T) {
	n := w.next
	w.next++
	w.do(t, func() error {
		for i := range layout {
			d, b, err := make1(n, i, 0)
			if err == nil {
				_, err = w.tier.Put(context.Background(), d, b)
			}
			if errors.Is(err, fault.Unavailable) && !w.m.isCut() {
				w.errors++
			}
			if err != nil {
				return err
			}
		}
		if !w.m.isCut() {
			w.chunks[n] = &promised{}
		}
		return nil
	})
}

func (w *powerWorld) some(t *rapid.T) (int, bool) {
	all := slices.Sorted(maps.Keys(w.chunks))
	if len(all) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(all).Draw(t, "chunk"), true
}

func (w *powerWorld) delete(t *rapid.T) {
	n, ok := w.some(t)
	if !ok {
		return
	}
	delete(w.chunks, n) // whatever becomes of it
	w.do(t, func() error {
		_, err := w.tier.Delete(context.Background(), keyOf(n))
		if err == nil && !w.m.isCut() && w.s.Stats().DeviceErrors == 0 {
			w.gone[n] = true
			w.deleted++
		}
		return err
	})
}

// pin moves a chunk into pinned segments, or out of them. It returns when the
// copies are durable.
func (w *powerWorld) pin(t *rapid.T) {
	n, ok := w.some(t)
	if !ok {
		return
	}
	move := w.tier.Pin
	if rapid.Bool().Draw(t, "unpin") {
		move = w.tier.Unpin
	}
	w.do(t, func() error {
		m, err := move(context.Background(), []keys.Key{keyOf(n)})
		if err == nil && !w.m.isCut() && m.Bytes > 0 {
			w.pinned++
			w.locate()
			if c := w.chunks[n]; c != nil && !w.isDurable(c, w.m.synced) {
				t.Fatalf("chunk %d was moved and is not durable: %+v", n, c)
			}
		}
		return err
	})
}

func (w *powerWorld) read(t *rapid.T) {
	if n, ok := w.some(t); ok {
		w.do(t, func() error {
			w.hits += w.count(t, n)
			return nil
		})
	}
}

// count counts the parts that are there and right.
func (w *powerWorld) count(t *rapid.T, n int) int {
	there, err := present(w.tier, n, func(err error) bool {
		return errors.Is(err, fault.Corrupt) && w.flaky || // found, and dropped
			errors.Is(err, fault.Unavailable) && (w.m.isCut() || w.m.flaky.Load() > 0)
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return there
}

// sync is what passes in 100 ms: after it everything acknowledged is durable.
func (w *powerWorld) sync(t *rapid.T) {
	w.do(t, func() error {
		err := w.s.segments.Sync(context.Background())
		if err != nil || w.m.isCut() {
			return err
		}
		for n, c := range w.chunks {
			if !w.isDurable(c, w.m.synced) && w.m.ops.Load() == 0 {
				t.Fatalf("chunk %d is not durable after a sync: %+v", n, c)
			}
		}
		return nil
	})
}

func (w *powerWorld) isDurable(c *promised, synced map[uint64]uint32) bool {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for i, l := range c.at {
		if !c.durable[i] && (l.IsZero() || l.Page >= synced[l.Segment]) {
			return false
		}
	}
	return true
}

func (w *powerWorld) cut(t *rapid.T) {
	w.locate()
	w.m.cut()
	w.afterCut(t)
}

// afterCut starts the next process after a power cut.
func (w *powerWorld) afterCut(t *rapid.T) {
	w.cuts++
	before := maps.Clone(w.chunks)
	w.locate() // what the operation at work was evicting or moving
	w.evicted -= len(before) - len(w.chunks)
	sure := map[int]bool{}
	for n, c := range before {
		sure[n] = w.chunks[n] != nil && w.isDurable(c, w.m.durable)
	}
	w.forwarded += int(w.s.Stats().ForwardedBytes)
	_ = w.s.Close() // its device is gone
	w.open(t, w.m.next)
	w.check(t, before, func(n int) bool { return sure[n] })
}

func (w *powerWorld) kill(t *rapid.T) {
	w.locate()
	w.m.left.Store(0)
	flaky := w.m.ops.Load() > 0
	next := w.m.killed()
	w.forwarded += int(w.s.Stats().ForwardedBytes)
	_ = w.s.Close()
	w.open(t, next)
	w.check(t, w.chunks, func(int) bool { return !flaky })
}

// check compares what is found after a start with what must be.
func (w *powerWorld) check(t *rapid.T, before map[int]*promised, sure func(int) bool) {
	after := map[int]*promised{}
	for n := range before {
		switch got := w.count(t, n); {
		case got == len(layout):
			w.hits += got
			after[n] = &promised{}
		case got != 0 && !w.flaky:
			t.Fatalf("%d parts of chunk %d", got, n)
		case sure(n):
			t.Fatalf("chunk %d is lost: %+v", n, before[n])
		default:
			w.lost++
		}
	}
	w.chunks = after
	w.locate()
	for _, c := range w.chunks {
		c.durable = [3]bool{true, true, true}
	}
	for n := range w.gone {
		if got := w.count(t, n); got != 0 {
			t.Fatalf("%d parts of chunk %d, which was deleted", got, n)
		}
	}
	if err := w.s.checkTables(); err != nil {
		t.Fatalf("%v", err)
	}
}

func (w *powerWorld) actions(flaky bool) map[string]func(*rapid.T) {
	a := map[string]func(*rapid.T){
		"put": w.put, "put more": w.put, "put still more": w.put, "delete": w.delete, "read": w.read, "pin": w.pin, "sync": w.sync, "cut": w.cut, "kill": w.kill,
		"index": func(t *rapid.T) { w.do(t, func() error { return w.s.index.Sync(context.Background()) }) },
		"seal":  func(t *rapid.T) { w.do(t, func() error { return w.s.segments.Seal(context.Background(), normal.ID) }) },
		"tick": func(t *rapid.T) {
			w.do(t, func() error {
				w.s.dropLate()
				w.s.settleSealed()
				w.s.compact(context.Background())
				return nil
			})
		},
	}
	if flaky {
		a["flaky"] = func(t *rapid.T) { w.m.flaky.Store(int64(rapid.SampledFrom([]int{0, 0, 3, 7, 15}).Draw(t, "one in"))) }
	}
	return a
}

// testPower lets the power fail between and within operations.
func testPower(t *testing.T, flaky bool) powerCounts {
	var all powerCounts
	rapid.Check(t, func(t *rapid.T) {
		w := &powerWorld{powerCounts: &all, flaky: flaky, chunks: map[int]*promised{}, gone: map[int]bool{}}
		w.open(t, newMachine(rapid.Uint64().Draw(t, "seed")))
		defer func() { _ = w.s.Close() }()
		// Some runs begin near the budget.
		for range rapid.SampledFrom([]int{0, 40}).Draw(t, "full") {
			w.put(t)
		}
		t.Repeat(w.actions(flaky))
		w.forwarded += int(w.s.Stats().ForwardedBytes)
	})
	t.Logf("counted: %+v, 0 wrong", all)
	if all.hits == 0 || all.cuts == 0 || all.midway == 0 || all.lost == 0 || all.deleted == 0 || all.evicted == 0 || all.pinned == 0 || all.forwarded == 0 {
		t.Error("the runs never met one of these")
	}
	return all
}

// The power is cut: what was durable is found, whole, and what was deleted is
// not; nothing comes back that is wrong.
func TestPowerCut(t *testing.T) {
	testPower(t, false)
}

// The same with a device that fails now and then.
func TestPowerCutFlaky(t *testing.T) {
	if testPower(t, true).errors == 0 {
		t.Error("nothing failed")
	}
}
