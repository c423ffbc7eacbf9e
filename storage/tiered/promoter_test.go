package tiered

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/singleflight"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// watcher adds up what it hears.
type watcher struct{ queued, ended, brought atomic.Int64 }

func (w *watcher) Queued(bytes int64) { w.queued.Add(bytes) }

func (w *watcher) Ended(bytes, brought int64) {
	w.ended.Add(bytes)
	w.brought.Add(brought)
}

func TestPromote(t *testing.T) {
	var w watcher
	p := NewPromoter(PromoterOptions{Watcher: &w})
	defer p.Close()
	front, back := &filler{store: newStore()}, newStore()
	back.fill(t, 1)
	if r := <-p.Start(chunkOf(1, back, front)); r.Err != nil || !front.whole(t, 1) {
		t.Fatalf("%v, or not all of it", r.Err)
	}
	if front.fills != len(layout) {
		t.Errorf("%d parts went straight into the front's memory", front.fills)
	}
	if r := <-p.Start(chunkOf(2, back, front)); !errors.Is(r.Err, fault.Miss) {
		t.Errorf("what is not there: %v", r.Err)
	}
	st := p.Stats()
	if st.Chunks != 1 || st.Failed != 1 || st.Bytes != 1536 {
		t.Errorf("%+v", st)
	}
	if w.queued.Load() != 2*1536 || w.ended.Load() != 2*1536 || w.brought.Load() != 1536 {
		t.Errorf("heard of %d bytes, of %d that were over, %d brought", w.queued.Load(), w.ended.Load(), w.brought.Load())
	}
}

// Many who want one chunk cause one copy, and a caller who gives up does not
// end it for the others.
func TestPromoteOnce(t *testing.T) {
	p := NewPromoter(PromoterOptions{})
	defer p.Close()
	front, back := newStore(), newStore()
	back.fill(t, 1)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	back.before = func(context.Context, part.ID) error {
		if first.CompareAndSwap(false, true) {
			close(begun)
			<-goOn
		}
		return nil
	}
	var outcomes []<-chan singleflight.Result
	outcomes = append(outcomes, p.Start(chunkOf(1, back, front)))
	<-begun
	for range 9 {
		outcomes = append(outcomes, p.Start(chunkOf(1, back, front)))
	}
	p.Start(chunkOf(1, back, front)) // nobody waits for this one
	close(goOn)
	for _, o := range outcomes {
		if r := <-o; r.Err != nil {
			t.Error(r.Err)
		}
	}
	if !front.whole(t, 1) || back.gets != len(layout) {
		t.Errorf("%d reads for %d parts", back.gets, len(layout))
	}
}

// No more than InFlight chunks are copied at a time, and Close ends those that
// wait.
func TestPromoteBounded(t *testing.T) {
	p := NewPromoter(PromoterOptions{InFlight: 2})
	front, back := newStore(), newStore()
	back.fill(t, 1, 2, 3, 4, 5, 6)
	var now, most atomic.Int64
	begun := make(chan struct{}, 20)
	back.before = func(ctx context.Context, _ part.ID) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	var outcomes []<-chan singleflight.Result
	for n := byte(1); n <= 6; n++ {
		outcomes = append(outcomes, p.Start(chunkOf(n, back, front)))
	}
	<-begun
	<-begun
	p.Close()
	for _, o := range outcomes {
		if r := <-o; r.Err == nil {
			t.Error("a copy that was ended succeeded")
		}
	}
	if most.Load() > 2 {
		t.Errorf("%d copies at a time", most.Load())
	}
}
