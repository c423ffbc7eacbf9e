package arena

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

// check compares the arena with what the clients may do.
func (w *world) check() error {
	if err := checkTables(w.a); err != nil {
		return err
	}
	if err := w.checkBytes(); err != nil {
		return err
	}
	a := w.a
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range w.clients {
		if c.write != nil {
			continue
		}
		for _, g := range c.grants {
			page, ok := a.space.page(g.slot.Segment, g.slot.Offset)
			if !ok {
				return fmt.Errorf("granted place %v does not exist", g.slot)
			}
			rec := a.space.user(page)
			if rec == 0 || a.ent[rec].state != stGranted && a.ent[rec].state != stRevoked || a.side.recs[rec].owner() != g.owner {
				return fmt.Errorf("a living process may write slot %v of owner %d, which is not its own any more", g.slot, g.owner)
			}
		}
		for _, l := range c.loads {
			for _, x := range l.leased {
				if a.owners[l.owner] != nil && !a.current(x.Chunk) {
					return fmt.Errorf("owner %d may read a chunk that is gone", l.owner)
				}
			}
		}
	}
	return nil
}

// checkBytes says whether every visible chunk still has its bytes.
func (w *world) checkBytes() error {
	a := w.a
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, variant := range w.visible {
		i := 0
		for rec := a.lookup(a.index.Hash(k[:]), &k, w.scope, isVisible); rec != 0; rec = a.ent[rec].next {
			r := &a.side.recs[rec]
			if !isPattern(w.maps[r.segment][uint64(r.page)*PageBytes:][:r.stored], k, i, variant) {
				return fmt.Errorf("the bytes of chunk %x part %d changed", k[:4], i)
			}
			i++
		}
		if i != len(w.spec.Parts) {
			return fmt.Errorf("chunk %x has %d parts", k[:4], i)
		}
	}
	return nil
}

// crash ends the daemon at this instant and lets a successor adopt. Sessions
// end; processes live on with their mappings.
func (w *world) crash() AdoptReport {
	h := dupHandles(w.tb, w.a.Handles())
	w.must(w.a.Close())
	if w.adopting == nil {
		w.adopting = map[keys.Key][]uint32{}
	}
	for k, v := range w.visible {
		w.adopting[k] = append(w.adopting[k], v)
	}
	w.visible = map[keys.Key]uint32{}
	a, rep, err := Adopt(w.opt, h)
	w.must(err)
	w.adopting = nil
	for _, c := range w.clients {
		if c.session {
			c.session = false
			c.ended = append(c.ended, c.owner)
		}
		c.loads = nil // can never be confirmed
	}
	w.held = nil
	w.orphans = append(w.orphans, rep.Orphans...)
	w.use(a)
	return rep
}

// crashDuring runs an operation and then lets the daemon have died at some
// instant of it: each sidecar record that the operation changed is as before,
// as after, or half-written. That is more than the order of stores allows, and
// none of it may do harm. draw(n) is a random number below n.
func (w *world) crashDuring(op func(), draw func(n int) int) AdoptReport {
	side := w.a.side
	before := append([]record(nil), side.recs[:w.a.recHigh]...)
	may := map[keys.Key][]uint32{}
	for k, v := range w.visible {
		may[k] = append(may[k], v)
	}
	op()
	w.adopting = may
	for i := range side.recs[:w.a.recHigh] {
		now, old := &side.recs[i], record{}
		if i < len(before) {
			old = before[i]
		}
		if *now == old {
			continue
		}
		switch draw(4) {
		case 0:
			*now = old
		case 1: // while it is written, the word is 0
			cut := draw(recordBytes)
			n, o := (*[recordBytes]byte)(unsafe.Pointer(now)), (*[recordBytes]byte)(unsafe.Pointer(&old))
			copy(n[cut:], o[cut:])
			now.word = 0
		}
	}
	return w.crash()
}

// getAll reads every part of a chunk through the tier: those of a visible one
// must be there and right, others must be a miss.
func (w *world) getAll(failf func(string, ...any), n int) {
	k := keyOf(n)
	variant, visible := w.visible[k]
	for i, p := range w.spec.Parts {
		buf := make([]byte, p.RawLength)
		var d part.Descriptor
		got, err := w.a.Tier(w.scope).Get(context.Background(), part.ID{Chunk: k, Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup}, &d, buf)
		switch {
		case !visible && !errors.Is(err, fault.Miss):
			failf("get of an absent chunk: %v", err)
		case visible && err != nil:
			failf("get: %v", err)
		case visible && (uint64(got) != p.RawLength || !isPattern(buf, k, i, variant) || part.Verify(&d, buf) != nil):
			failf("get of chunk %d part %d returned other bytes", n, i)
		}
	}
}
