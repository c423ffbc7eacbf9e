package arena

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/larderkv/larder/storage"
)

// Several sessions, a scrubber, an evicting neighbour and a daemon's clock at
// once, on the real clock; run with -race. Each load that is confirmed has the
// right bytes.
func TestConcurrent(t *testing.T) {
	const (
		sessions, rounds, chunks = 6, 400, 24
		length                   = 16384
	)
	a, err := Open(Options{Budget: 512 << 10, SegmentBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := a.Namespace(NamespaceSpec{Fingerprint: [32]byte{1}, Parts: []PartSpec{{RawLength: length, Layers: 4}, {HeadGroup: 1, RawLength: length, Layers: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := a.Tenant([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	scope := Scope{ns, tenant}
	var confirmed, published atomic.Int64
	var workers, helpers sync.WaitGroup
	stop := make(chan struct{})
	helpers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				a.Scrub(context.Background(), 1<<18)
				a.Expire(SystemClock{}.MonotonicNanos())
				a.Stats()
			}
		}
	})
	for i := range sessions {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			o := Owner(i + 1)
			if err := a.Attach(o, scope); err != nil {
				t.Error(err)
				return
			}
			for round := range rounds {
				n := r.IntN(chunks)
				k := keyOf(n)
				refs, _ := a.Match(scope, k[:], 0, round%3 == 0, nil)
				if len(refs) == 0 {
					storeOne(t, a, o, n, length, &published)
					continue
				}
				loadOne(t, a, o, uint64(round), refs[0], n, &confirmed)
				if round%3 == 0 {
					a.Unhold(refs)
				}
				if r.IntN(10) == 0 {
					a.Drop(scope, k)
				}
				if r.IntN(100) == 0 {
					a.Clear(Filter{Any, Any})
				}
			}
			a.Detach(o)
			a.Gone(o)
		})
	}
	workers.Wait()
	close(stop)
	helpers.Wait()
	if confirmed.Load() == 0 || published.Load() == 0 {
		t.Fatalf("%d loads confirmed, %d parts published", confirmed.Load(), published.Load())
	}
	a.Clear(Filter{Any, Any})
	// Parts whose partner was rejected (a Clear in between) still wait.
	a.Expire(SystemClock{}.MonotonicNanos() + int64(a.opt.PendingTimeout) + 1)
	if err := checkEmpty(a); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d loads confirmed, %d parts published", confirmed.Load(), published.Load())
}

func storeOne(t *testing.T, a *Arena, o Owner, n, length int, published *atomic.Int64) {
	gs, err := a.Grant(o, int64(length), 2, nil)
	if err != nil {
		return // full for the moment
	}
	var parts []PartCommit
	for i, g := range gs {
		pattern(a.segs[g.Slot.Segment].mem[g.Slot.Offset:][:length], keyOf(n), i, 0)
		parts = append(parts, PartCommit{Part: i, Slot: g.Slot, Length: uint64(length)})
	}
	for _, r := range a.Commit(context.Background(), o, Chunk{Key: keyOf(n), Parent: keyOf(n - 1), Tokens: 256}, parts, nil) {
		switch r.Outcome {
		case storage.Published:
			published.Add(1)
		case storage.Conflict:
			t.Errorf("the same bytes conflict")
		}
	}
}

func loadOne(t *testing.T, a *Arena, o Owner, id uint64, ref ChunkRef, n int, confirmed *atomic.Int64) {
	ls, err := a.Lease(o, id, ref, nil, nil)
	if err != nil {
		return // gone meanwhile
	}
	right := true
	for i, l := range ls {
		if err := a.Verify(l); err != nil {
			t.Errorf("verify: %v", err)
		}
		right = right && isPattern(a.segs[l.Slot.Segment].mem[l.Slot.Offset:][:l.Length], keyOf(n), i, 0)
	}
	if a.Release(o, id) {
		confirmed.Add(1)
		if !right {
			t.Errorf("a confirmed load returned other bytes")
		}
	}
}

// Close waits for what runs outside the lock; everything after it is refused.
func TestCloseWhileBusy(t *testing.T) {
	for range 30 {
		a, err := Open(Options{Budget: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		ns, err := a.Namespace(NamespaceSpec{Fingerprint: [32]byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		tenant, err := a.Tenant([32]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		src := make([]byte, 1<<20)
		var wg, running sync.WaitGroup
		running.Add(4)
		for i := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					if n == 1 {
						running.Done()
					}
					r := a.Put(context.Background(), Scope{ns, tenant}, Chunk{Key: keyOf(i), Tokens: 1, Expected: 1}, 0, src)
					if r.Err != nil {
						return
					}
					a.Drop(Scope{ns, tenant}, keyOf(i))
				}
			})
		}
		running.Wait()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
}
