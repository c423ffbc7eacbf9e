package segment_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"pgregory.net/rapid"
)

// known is a part that was acknowledged.
type known struct {
	rec segment.Record
	loc segment.Location
	// durable: the store said so. dead: punched or dropped, so it may be gone.
	durable, dead bool
}

// crashWorld is a store on a simulated disk and what it promised.
type crashWorld struct {
	t      *rapid.T
	fs     *simfs.FS
	opt    segment.Options
	s      *segment.Store
	parts  []*known
	number uint64
	newest uint64 // sequence
	hits   int
	// back is what power cuts brought back beyond the budget, of ranges that were
	// punched or cut off.
	back   int64
	mu     sync.Mutex // the store's goroutine tells
	synced map[uint64]uint32
}

func newCrashWorld(t *rapid.T) *crashWorld {
	w := &crashWorld{t: t, fs: simfs.New(64 << 20), synced: map[uint64]uint32{}}
	w.open()
	return w
}

func (w *crashWorld) open() {
	w.opt = options(w.fs)
	w.opt.Budget, w.opt.SegmentBytes, w.opt.Lanes = 12<<20, 2<<20, 2
	w.opt.Durable = func(sequence uint64, page uint32) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.synced[sequence] = page
	}
	w.s = open(w.t, w.opt)
}

func (w *crashWorld) append() {
	sizes := rapid.SliceOfN(rapid.SampledFrom([]int{1, 4096, 5000, 5000, 40000, 40000, 100 << 10, 1<<20 + 1}), 1, 12).Draw(w.t, "sizes")
	var recs []segment.Record
	for _, n := range sizes {
		w.number++
		r := record(w.number, n, 1, scope(byte(w.number%3)))
		if len(bytes.Trim(r.Data, "\x00")) == 0 {
			// Zeros can be read where their write was lost, and a scan finds a hole.
			w.number++
			r = record(w.number, n, 1, scope(byte(w.number%3)))
		}
		recs = append(recs, r)
	}
	target := segment.Target{Class: segment.Class{ID: uint16(w.number % 2), Name: "c"}, Affinity: w.number}
	ls, err := w.s.Append(context.Background(), target, recs)
	if err != nil && !errors.Is(err, fault.Full) {
		w.t.Fatal(err)
	}
	for i, l := range ls {
		if !l.IsZero() {
			w.parts = append(w.parts, &known{rec: recs[i], loc: l})
			w.newest = max(w.newest, l.Segment)
		} else if err == nil {
			w.t.Fatal("no place and no error")
		}
	}
	if err != nil {
		w.drop()
	}
}

func (w *crashWorld) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parts {
		p.durable = p.durable || p.loc.Page < w.synced[p.loc.Segment]
	}
}

func (w *crashWorld) sync() {
	must(w.t, w.s.Sync(context.Background()))
	w.note()
	for _, p := range w.parts {
		if !p.durable && !p.dead {
			w.t.Fatalf("%v is not durable after a sync", p.loc)
		}
	}
}

func (w *crashWorld) drop() {
	if segs := w.s.Segments(); len(segs) > 0 {
		_, err := w.s.Drop(segs[0].Sequence)
		must(w.t, err)
		for _, p := range w.parts {
			p.dead = p.dead || p.loc.Segment == segs[0].Sequence
		}
	}
}

func (w *crashWorld) punch() {
	var ls []segment.Location
	for _, p := range w.parts {
		if !p.dead && rapid.IntRange(0, 3).Draw(w.t, "punch") == 0 {
			ls = append(ls, p.loc)
			p.dead = true
		}
	}
	must(w.t, w.s.Punch(context.Background(), ls))
}

// check reads every part. sure says which must be there.
func (w *crashWorld) check(sure func(*known) bool) {
	entries := scanAll(w.t, w.s)
	w.parts = slices.DeleteFunc(w.parts, func(p *known) bool {
		err := get(w.t, w.s, p.loc, p.rec)
		switch {
		case err != nil && !isLost(err):
			w.t.Fatal(err)
		case err != nil && !p.dead && sure(p):
			w.t.Fatalf("%v is lost: %v", p.loc, err)
		case err == nil:
			w.hits++
		}
		if e, ok := entries[p.loc]; err == nil && !p.dead && (!ok || e.Punched) {
			w.t.Fatalf("%v is not found by a scan", p.loc)
		}
		if e, ok := entries[p.loc]; err != nil && ok && !e.Punched {
			w.t.Fatalf("a scan finds %v, but: %v", p.loc, err)
		}
		return err != nil
	})
	w.back = min(w.back, w.beyond())
	if over := w.beyond(); over > w.back {
		w.t.Fatalf("%d bytes used beyond the budget of %d, %d of them brought back by power cuts", over, w.opt.Budget, w.back)
	}
}

// beyond is what all files use beyond the budget, but for the superblock's.
func (w *crashWorld) beyond() int64 {
	return max(w.fs.Used()-w.opt.Budget-64<<10, 0)
}

// again opens the store on what is left.
func (w *crashWorld) again(fs *simfs.FS) {
	_ = w.s.Close() // its device is gone
	w.fs = fs
	w.synced = map[uint64]uint32{}
	w.open()
	for _, in := range w.s.Segments() {
		switch {
		case in.State == segment.StateSealed:
		case in.State == segment.StateBroken && in.Parts == 0:
			// Its first page is torn.
			_, err := w.s.Drop(in.Sequence)
			must(w.t, err)
		default:
			w.t.Fatalf("segment %d is %v", in.Sequence, in.State)
		}
	}
	rep, err := segment.Check(context.Background(), dir, fs, segment.Visitor{Problem: func(p segment.Problem) { w.t.Errorf("%+v", p) }})
	must(w.t, err)
	if rep.Torn > 0 || !rep.InUse {
		w.t.Fatalf("%+v", rep)
	}
}

func (w *crashWorld) kill() {
	w.again(w.fs.Kill())
	w.check(func(*known) bool { return true })
	w.kept()
}

func (w *crashWorld) crash() {
	w.note()
	seed := rapid.Uint64().Draw(w.t, "crash")
	w.again(w.fs.Crash(rand.New(rand.NewPCG(seed, 0))))
	w.back = w.beyond()
	if most := int64(len(w.s.Segments()))*w.opt.SegmentBytes - w.opt.Budget; w.back > 0 && w.back > most {
		w.t.Fatalf("%d bytes used beyond the budget, where segments of their full size have %d", w.back, most)
	}
	w.check(func(p *known) bool { return p.durable })
	w.kept()
}

// kept: what is there after an Open is durable.
func (w *crashWorld) kept() {
	for _, p := range w.parts {
		p.durable = true
	}
}

// TestCrashes: whatever happens, in any order, no wrong byte is returned; a
// killed process loses nothing, and a power cut nothing that was durable.
func TestCrashes(t *testing.T) {
	must(t, flag.Set("rapid.steps", "30"))
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		must(t, checks.Value.Set("40")) // each has its own disk
	}
	hits := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newCrashWorld(t)
		defer func() { _ = w.s.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"append": func(*rapid.T) { w.append() },
			"more":   func(*rapid.T) { w.append() },
			"sync":   func(*rapid.T) { w.sync() },
			"seal":   func(*rapid.T) { must(t, w.s.Seal(context.Background(), uint16(w.number%2))) },
			"drop":   func(*rapid.T) { w.drop() },
			"punch":  func(*rapid.T) { w.punch() },
			"read":   func(*rapid.T) { w.check(func(*known) bool { return true }) },
			"kill":   func(*rapid.T) { w.kill() },
			"crash":  func(*rapid.T) { w.crash() },
		})
		hits += w.hits
	})
	if hits == 0 {
		t.Fatal("nothing was ever read back")
	}
}
