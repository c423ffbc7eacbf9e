package arena

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

// The exhaustive exploration: every interleaving of two client processes, the
// clock and the daemon over an arena of one or two slots, breadth first until
// no new state appears. In each state no living process may write a slot that
// is not its own, visible chunks have their bytes, no confirmed load returned
// other bytes, and the tables are consistent.
//
// An arena cannot be copied, so a state is reached again by running its
// operations from the start.

// exploreOp is one operation; it does nothing where it does not apply.
type exploreOp struct {
	name string
	run  func(w *world, c *simClient, id int)
}

// Every client has at most one slot and one load at a time; client i stores
// chunk i, and loads the other's.
var exploreOps = []exploreOp{
	{"grant", func(w *world, c *simClient, _ int) {
		if c.session && len(c.grants) == 0 {
			_ = w.grant(c, int(w.spec.Parts[0].RawLength), 1)
		}
	}},
	{"write", func(w *world, c *simClient, id int) {
		if len(c.grants) > 0 {
			w.writeTo(c, 0, keyOf(id), 0, uint32(id))
		}
	}},
	{"commit", func(w *world, c *simClient, id int) {
		if c.session {
			w.commit(c, Chunk{Key: keyOf(id), Tokens: 256}, uint32(id))
		}
	}},
	{"lease", func(w *world, c *simClient, id int) {
		if c.session && len(c.loads) == 0 {
			w.load(c, 1-id)
		}
	}},
	{"copy", func(w *world, c *simClient, _ int) {
		if len(c.loads) > 0 {
			w.copyOut(c.loads[0])
		}
	}},
	{"release", func(w *world, c *simClient, _ int) {
		if len(c.loads) > 0 && c.loads[0].copied {
			w.release(c, c.loads[0])
		}
	}},
	{"answer", func(w *world, c *simClient, _ int) {
		if c.session {
			w.answer(c)
		}
	}},
	{"disconnect", func(w *world, c *simClient, _ int) { w.disconnect(c) }},
	{"reconnect", func(w *world, c *simClient, _ int) {
		if len(c.ended) == 0 { // once in a process's life, else there is no end of states
			w.reattach(c)
		}
	}},
	{"die", func(w *world, c *simClient, id int) {
		w.kill(c)
		w.attach()
		if id == 0 { // keep the order of clients
			w.clients[0], w.clients[1] = w.clients[1], w.clients[0]
		}
	}},
}

var exploreDaemonOps = []exploreOp{
	{"expire", func(w *world, _ *simClient, _ int) { w.expire(int64(w.a.opt.Lease) + 1) }},
	{"tick", func(w *world, _ *simClient, _ int) { w.clock.now += int64(w.a.opt.Lease) + 1 }},
	{"overdue", func(w *world, _ *simClient, _ int) { w.overdue() }},
	{"drop", func(w *world, _ *simClient, _ int) { w.a.Drop(w.scope, keyOf(0)) }},
	{"crash", func(w *world, _ *simClient, _ int) {
		if w.opt.Mode == Shared {
			w.crash()
		}
	}},
}

type exploreStep struct{ op, client int } // client 2 = the daemon's operations

func (s exploreStep) String() string {
	if s.client == 2 {
		return exploreDaemonOps[s.op].name
	}
	return fmt.Sprintf("%s%d", exploreOps[s.op].name, s.client)
}

func (s exploreStep) run(w *world) {
	if s.client == 2 {
		exploreDaemonOps[s.op].run(w, nil, 0)
		return
	}
	exploreOps[s.op].run(w, w.clients[s.client], s.client)
}

// state describes the world without numbers that only count up.
func (w *world) state() string {
	var b strings.Builder
	for i, c := range w.clients {
		fmt.Fprintf(&b, "c%d session=%v", i, c.session)
		for _, g := range c.grants {
			fmt.Fprintf(&b, " grant(seg %d off %d own=%v past=%v revoked=%v written=%v)", g.slot.Segment, g.slot.Offset, g.owner == c.owner && c.session, w.clock.now > g.deadline, g.revoked, g.written)
		}
		for _, l := range c.loads {
			fmt.Fprintf(&b, " load(off %d own=%v past=%v copied=%v wrong=%v revoked=%v)", l.leased[0].Slot.Offset, l.owner == c.owner && c.session, w.clock.now > l.leased[0].Deadline, l.copied, l.wrong, l.revoked)
		}
		for _, o := range c.ended {
			if own := w.a.owners[o]; own != nil {
				fmt.Fprintf(&b, " ended(%d grants %d loads)", own.live.n+len(own.revoked), len(own.loads))
			}
		}
	}
	for page := uint32(0); page < w.a.space.g.units*w.a.space.g.unitPages; page++ {
		if rec := w.a.space.user(page); rec != 0 {
			e, r := &w.a.ent[rec], &w.a.side.recs[rec]
			fmt.Fprintf(&b, " slot(%d state %d count %d", page, e.state, e.count)
			if e.state != stGranted && e.state != stRevoked {
				fmt.Fprintf(&b, " key %d", r.key[0])
			}
			b.WriteString(")")
		}
	}
	// The coldest first: it decides what is evicted.
	var cold [2]uint32
	for _, rec := range cold[:w.a.policy.Coldest(cold[:])] {
		fmt.Fprintf(&b, " cold %d", w.a.pageOf(rec))
	}
	// Overdue depends on when something was revoked.
	for i, c := range w.clients {
		if own := w.a.owners[c.owner]; own != nil {
			fmt.Fprintf(&b, " overdue%d=%v", i, own.overdue(w.clock.now-int64(w.a.opt.RevokeGrace)))
		}
	}
	return b.String()
}

func explore(t *testing.T, opt Options, slotBytes uint64, maxDepth int) (left int) {
	var steps []exploreStep
	for c := range 2 {
		for i := range exploreOps {
			steps = append(steps, exploreStep{i, c})
		}
	}
	for i := range exploreDaemonOps {
		steps = append(steps, exploreStep{i, 2})
	}
	start := func() *world {
		w := newWorld(t, opt, []PartSpec{{RawLength: slotBytes, Layers: 1}})
		for range 2 {
			if w.attach() == nil {
				t.Fatal("no room for two clients")
			}
		}
		return w
	}
	w := start()
	seen := map[string]bool{w.state(): true}
	w.end()
	frontier := [][]exploreStep{nil}
	runs := 0
	reached := map[string]bool{}
	depth := 0
	for ; len(frontier) > 0 && depth < maxDepth; depth++ {
		var next [][]exploreStep
		for _, path := range frontier {
			for _, step := range steps {
				w := start()
				for _, s := range path {
					s.run(w)
				}
				step.run(w)
				runs++
				if err := w.check(); err != nil {
					t.Fatalf("after %v %v: %v", path, step, err)
				}
				st := w.state()
				for _, what := range []string{"past=true", "revoked=true", "own=false", "load(", "wrong=true", "ended(", "state 6", "overdue0=true"} {
					if strings.Contains(st, what) {
						reached[what] = true
					}
				}
				if !seen[st] {
					seen[st] = true
					next = append(next, append(append([]exploreStep(nil), path...), step))
				}
				w.end()
			}
		}
		frontier = next
	}
	t.Logf("%d states, %d runs, depth %d, %d states not expanded", len(seen), runs, depth, len(frontier))
	for _, what := range []string{"past=true", "revoked=true", "own=false", "load(", "ended("} {
		if !reached[what] {
			t.Errorf("no state has %q", what)
		}
	}
	return len(frontier)
}

// exploreDepth bounds the runs with two slots: 7 takes seconds, 12 an hour.
var exploreDepth = flag.Int("explore.depth", 7, "operations in a run of the exploration with two slots")

// With one slot the exploration is complete.
func TestExploreOneSlot(t *testing.T) {
	if left := explore(t, Options{Budget: 64 << 10, SegmentBytes: 64 << 10}, 64<<10, 100); left != 0 {
		t.Errorf("%d states were not expanded", left)
	}
}

func TestExploreTwoSlots(t *testing.T) {
	explore(t, Options{Budget: 64 << 10, SegmentBytes: 64 << 10}, 32<<10, *exploreDepth)
}

func TestExploreGuarded(t *testing.T) {
	explore(t, Options{Budget: 192 << 10, SegmentBytes: 64 << 10, Mode: Guarded, WriteSegmentBytes: 64 << 10, WriteReserve: 128 << 10}, 64<<10, 6)
}
