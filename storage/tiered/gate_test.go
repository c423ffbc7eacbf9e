package tiered

import (
	"context"
	"errors"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// hanging is a store that does not answer about chunk 1 until it is released, and
// says when it was asked.
func hanging() (back *store, asked, release chan struct{}) {
	back = newStore()
	asked, release = make(chan struct{}, 1), make(chan struct{})
	back.before = func(_ context.Context, id part.ID) error {
		if id.Chunk == (keys.Key{1}) && id.HeadGroup == 0 {
			asked <- struct{}{}
			<-release
		}
		return nil
	}
	return back, asked, release
}

func only(n byte) func(storage.Scope, keys.Key) bool {
	return func(s storage.Scope, k keys.Key) bool { return s == scope && k == keys.Key{n} }
}

// A device that hangs holds up who removes the chunk that it copies, until his
// context ends; other removals and other copies go on.
func TestGateWhileADeviceHangs(t *testing.T) {
	var gate Gate
	p := NewPromoter(PromoterOptions{Gate: &gate})
	defer p.Close()
	front := newStore()
	back, asked, release := hanging()
	back.fill(t, 1, 2, 3)
	hung := p.Start(chunkOf(1, back, front))
	<-asked

	removed := 0
	remove := func() error { removed++; return nil }
	if err := gate.Remove(t.Context(), only(2), remove); err != nil || removed != 1 {
		t.Fatalf("another chunk: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gate.Remove(ended, only(1), remove); !errors.Is(err, fault.Unavailable) || removed != 1 {
		t.Fatalf("removed %d chunks, %v", removed, err)
	}
	// One that waits.
	waits, out := make(chan struct{}), make(chan error)
	go func() {
		first := true
		out <- gate.Remove(t.Context(), func(s storage.Scope, k keys.Key) bool {
			if first {
				close(waits)
				first = false
			}
			return only(1)(s, k)
		}, remove)
	}()
	<-waits
	if r := <-p.Start(chunkOf(3, back, front)); r.Err != nil || !front.whole(t, 3) {
		t.Errorf("a promotion beside a removal that waits: %v", r.Err)
	}
	c := chunkOf(1, front, back)
	if _, err := c.copy(t.Context(), &gate); !errors.Is(err, fault.Miss) {
		t.Errorf("a copy of what is being removed: %v", err)
	}
	close(release)
	if r := <-hung; r.Err != nil {
		t.Error(r.Err)
	}
	if err := <-out; err != nil || removed != 2 {
		t.Errorf("removed %d chunks, %v", removed, err)
	}
	if _, err := c.copy(t.Context(), &gate); err != nil {
		t.Errorf("after the removal: %v", err)
	}
}

// No copy brings back what was removed: those at work end before it, and those
// that come meanwhile find nothing.
func TestGateKeepsCopiesApart(t *testing.T) {
	var gate Gate
	front := newStore()
	back, asked, release := hanging()
	back.fill(t, 1)
	c := chunkOf(1, back, front)
	copied := make(chan error)
	go func() {
		_, err := c.copy(t.Context(), &gate)
		copied <- err
	}()
	<-asked
	waits, out := make(chan struct{}, 1), make(chan error)
	go func() {
		out <- gate.Remove(t.Context(), func(storage.Scope, keys.Key) bool {
			select {
			case waits <- struct{}{}:
			default:
			}
			return true
		}, func() error {
			_, err := front.Delete(t.Context(), keys.Key{1})
			_, err2 := back.Delete(t.Context(), keys.Key{1})
			if _, err3 := c.copy(t.Context(), &gate); !errors.Is(err3, fault.Miss) {
				t.Errorf("a copy while it is removed: %v", err3)
			}
			return errors.Join(err, err2)
		})
	}()
	<-waits
	close(release)
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if err := <-out; err != nil {
		t.Fatal(err)
	}
	if len(front.parts)+len(back.parts) != 0 {
		t.Errorf("%d parts are left", len(front.parts)+len(back.parts))
	}
	if len(gate.copies)+len(gate.removals) != 0 {
		t.Errorf("%d copies and %d removals are left in the gate", len(gate.copies), len(gate.removals))
	}
}
