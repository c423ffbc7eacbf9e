package tiered

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

func TestPolicies(t *testing.T) { synctest.Test(t, testPolicies) }

func testPolicies(t *testing.T) {
	for _, name := range Policies() {
		policy, err := ParsePolicy(name)
		if err != nil || policy.String() != name {
			t.Fatal(name, err)
		}
		want := map[string][]Occasion{
			"on-reuse": {Reused, Cold}, "always": {Published, Reused, Cold}, "on-evict": {Cold}, "never": nil,
		}[name]
		w := NewWriter(WriterOptions{Policy: policy})
		front, back := newStore(), holder{newStore()}
		front.fill(t, 0, 1, 2)
		for _, o := range []Occasion{Published, Reused, Cold} {
			w.Offer(o, chunkOf(byte(o), front, back))
		}
		synctest.Wait() // until the workers are idle
		for _, o := range []Occasion{Published, Reused, Cold} {
			wanted := false
			for _, x := range want {
				wanted = wanted || x == o
			}
			if back.whole(t, byte(o)) != wanted {
				t.Errorf("%s: written on occasion %d: %v", name, o, !wanted)
			}
		}
		if st := w.Stats(); int(st.Chunks) != len(want) || st.Bytes != 1536*int64(len(want)) || st.Waiting != 0 {
			t.Errorf("%s: %+v", name, st)
		}
		w.Close()
		w.Close()
	}
	if _, err := ParsePolicy("sometimes"); !errors.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

// Offers never block: what is there, waits or finds no room is not queued.
func TestQueue(t *testing.T) { synctest.Test(t, testQueue) }

func testQueue(t *testing.T) {
	w := NewWriter(WriterOptions{Policy: Always, Queue: 2, Workers: 1})
	front, back := newStore(), holder{newStore()}
	front.fill(t, 1, 2, 3, 4, 5)
	back.fill(t, 5)
	begun, goOn := make(chan struct{}, 20), make(chan struct{})
	front.before = func(context.Context, part.ID) error {
		begun <- struct{}{}
		<-goOn
		return nil
	}
	if w.Offer(Published, chunkOf(5, front, back)) {
		t.Error("a chunk that is there was queued")
	}
	if !w.Offer(Published, chunkOf(1, front, back)) {
		t.Fatal("not queued")
	}
	<-begun // it is at work, the queue is empty
	for n, want := range map[byte]bool{2: true, 3: true} {
		if got := w.Offer(Published, chunkOf(n, front, back)); got != want {
			t.Errorf("chunk %d: %v", n, got)
		}
	}
	if !w.Offer(Reused, chunkOf(2, front, back)) {
		t.Error("a chunk that waits is not said to")
	}
	if w.Offer(Published, chunkOf(4, front, back)) {
		t.Error("more than the queue holds")
	}
	close(goOn)
	synctest.Wait() // until the workers are idle
	for n, want := range map[byte]bool{1: true, 2: true, 3: true, 4: false} {
		if back.whole(t, n) != want {
			t.Errorf("chunk %d is there: %v", n, !want)
		}
	}
	if st := w.Stats(); st.Dropped != 1 || st.Chunks != 3 {
		t.Errorf("%+v", st)
	}
	w.Close()
	if w.Offer(Published, chunkOf(4, front, back)) {
		t.Error("queued after close")
	}
}

func TestWriterErrors(t *testing.T) {
	w := NewWriter(WriterOptions{Policy: Always})
	defer w.Close()
	front, back := newStore(), newStore()
	front.fill(t, 1)
	if err := w.Write(t.Context(), chunkOf(9, front, back)); !errors.Is(err, fault.Miss) {
		t.Errorf("gone: %v", err)
	}
	back.refuse = fault.New(fault.Full, "x", "full")
	_ = w.Write(t.Context(), chunkOf(1, front, back))
	back.refuse = fault.New(fault.Unavailable, "x", "broken")
	_ = w.Write(t.Context(), chunkOf(1, front, back))
	back.refuse = nil
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Write(stopped, chunkOf(1, front, back)); !errors.Is(err, fault.Unavailable) {
		t.Errorf("stopped: %v", err)
	}
	if st := w.Stats(); st.Refused != 1 || st.Failed != 2 || st.Chunks != 0 {
		t.Errorf("%+v", st)
	}
}

// A removal waits for the copies at work of what it removes, and those that come
// meanwhile find nothing, so nothing is brought back.
func TestGate(t *testing.T) { synctest.Test(t, testGate) }

func testGate(t *testing.T) {
	gate := &Gate{}
	w := NewWriter(WriterOptions{Policy: Always, Gate: gate, Workers: 1})
	defer w.Close()
	front, back := newStore(), newStore()
	front.fill(t, 1, 2)
	begun, goOn := make(chan struct{}, 9), make(chan struct{})
	back.beforePut = func() {
		begun <- struct{}{}
		<-goOn
	}
	w.Offer(Published, chunkOf(1, front, back))
	w.Offer(Published, chunkOf(2, front, back))
	<-begun // its first part is read and about to be put
	removed := make(chan error)
	go func() {
		removed <- gate.Remove(context.Background(), func(storage.Scope, keys.Key) bool { return true }, func() error {
			for n := byte(1); n <= 2; n++ {
				for _, s := range []*store{front, back} {
					if _, err := s.Delete(context.Background(), keys.Key{n}); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}()
	close(goOn)
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // until the workers are idle
	if len(back.parts)+len(front.parts) != 0 {
		t.Errorf("%d parts came back", len(back.parts)+len(front.parts))
	}
}
