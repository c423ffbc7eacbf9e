package arena

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"pgregory.net/rapid"
)

// The metamorphic runner: random operations of several clients, the clock and
// the daemon, with crashes, against the model in world. rapid shrinks a failure
// and keeps its seed under testdata/rapid, where it is run again from then on.

const (
	metaChunks = 6
	metaShort  = 4096
	metaLong   = 20480
)

func metaParts() []PartSpec {
	return []PartSpec{
		{Group: 0, RawLength: metaShort, Layers: 2},
		{Group: 0, HeadGroup: 1, RawLength: metaShort, Layers: 2},
		{Group: 1, RawLength: metaLong, Layers: 20},
	}
}

// metaMachine holds one run. Its methods are the operations.
type metaMachine struct {
	*world
	hits, publishes, confirmed, crashes, torn int
}

func (m *metaMachine) client(t *rapid.T) *simClient {
	if len(m.clients) == 0 {
		return m.attach()
	}
	return rapid.SampledFrom(m.clients).Draw(t, "client")
}

func (m *metaMachine) connected(t *rapid.T) *simClient {
	c := m.client(t)
	if c != nil && !c.session {
		return nil
	}
	return c
}

func (m *metaMachine) Attach(t *rapid.T) {
	if len(m.clients) < 4 {
		m.attach()
		return
	}
	c := m.client(t)
	if c.write != nil && !c.session {
		m.kill(c) // a write segment is not used by a second session
		m.attach()
		return
	}
	m.reattach(c)
}

func (m *metaMachine) Grant(t *rapid.T) {
	if c := m.connected(t); c != nil && len(c.grants) < 8 {
		length := rapid.SampledFrom([]int{metaShort, metaLong}).Draw(t, "length")
		_ = m.grant(c, length, rapid.IntRange(1, 3).Draw(t, "n"))
	}
}

// rarely keeps operations that end things from ending every run early.
func (m *metaMachine) rarely(t *rapid.T) bool {
	return rapid.IntRange(0, 5).Draw(t, "really") == 0
}

// Write is a copy into any slot that the client has not given up: also past
// the deadline, and after its session or the daemon has ended.
func (m *metaMachine) Write(t *rapid.T) {
	c := m.client(t)
	if c == nil || len(c.grants) == 0 {
		return
	}
	i := rapid.IntRange(0, len(c.grants)-1).Draw(t, "grant")
	part := rapid.IntRange(0, 1).Draw(t, "part")
	if c.grants[i].length == metaLong {
		part = 2
	}
	k := keyOf(rapid.IntRange(0, metaChunks-1).Draw(t, "chunk"))
	m.writeTo(c, i, k, part, uint32(rapid.IntRange(0, 1).Draw(t, "variant")))
}

func (m *metaMachine) commitSome(t *rapid.T, c *simClient, n int, quality uint8, variant uint32) {
	chunk := Chunk{Key: keyOf(n), Parent: keyOf(n - 1), Ordinal: uint32(n), Tokens: 256, Quality: quality}
	for _, r := range m.commit(c, chunk, variant) {
		if (r.Outcome == storage.Rejected) != (r.Err != nil) {
			t.Fatalf("outcome %v with error %v", r.Outcome, r.Err)
		}
		if r.Outcome == storage.Published {
			m.publishes++
			m.match(n, 1, false) // a match right after the publish sees it
		}
	}
}

// Commit hands over what is written. The quality is the variant's, so that
// bytes of different variants never meet in one chunk; parts of a variant may
// come from several clients.
func (m *metaMachine) Commit(t *rapid.T) {
	if c := m.connected(t); c != nil {
		v := uint32(rapid.IntRange(0, 1).Draw(t, "variant"))
		m.commitSome(t, c, rapid.IntRange(0, metaChunks-1).Draw(t, "chunk"), uint8(v), v)
	}
}

// Store does all of it at once, so that runs reach full arenas.
func (m *metaMachine) Store(t *rapid.T) {
	c := m.connected(t)
	if c == nil || len(c.grants) > 5 {
		return
	}
	n, v := rapid.IntRange(0, metaChunks-1).Draw(t, "chunk"), uint32(rapid.IntRange(0, 1).Draw(t, "variant"))
	base := len(c.grants)
	_ = m.grant(c, metaShort, 2)
	_ = m.grant(c, metaLong, 1)
	part := 0
	for i := base; i < len(c.grants); i++ {
		if c.grants[i].length == metaLong {
			part = 2
		}
		m.writeTo(c, i, keyOf(n), part, v)
		part++
	}
	m.commitSome(t, c, n, uint8(v), v)
}

// CommitWrong commits what is not the client's: places of others, old
// generations, places that do not exist.
func (m *metaMachine) CommitWrong(t *rapid.T) {
	c := m.connected(t)
	if c == nil {
		return
	}
	s := Slot{
		Segment:    uint16(rapid.SampledFrom([]int{0, 1, 200, WriteSegment}).Draw(t, "segment")),
		Offset:     uint64(rapid.IntRange(0, 70).Draw(t, "page")) * PageBytes,
		Generation: uint32(rapid.IntRange(0, 300).Draw(t, "generation")),
	}
	for _, g := range c.grants {
		if g.owner == c.owner && g.slot.Segment == s.Segment && g.slot.Offset == s.Offset && g.slot.Generation == s.Generation {
			return // it is right by chance
		}
	}
	res := m.a.Commit(context.Background(), c.owner, Chunk{Key: keyOf(0), Tokens: 256}, []PartCommit{{Slot: s, Length: metaShort}}, nil)
	if res[0].Outcome != storage.Rejected {
		t.Fatalf("commit of %v: %v", s, res)
	}
	if m.a.Return(c.owner, []Slot{s}) == nil {
		t.Fatalf("return of %v", s)
	}
}

func (m *metaMachine) Return(t *rapid.T) {
	c := m.connected(t)
	if c == nil || len(c.grants) == 0 || c.grants[0].owner != c.owner {
		return
	}
	if err := m.a.Return(c.owner, []Slot{c.grants[0].slot}); err != nil {
		t.Fatalf("return: %v", err)
	}
	c.grants = c.grants[1:]
}

func (m *metaMachine) Match(t *rapid.T) {
	refs := m.match(rapid.IntRange(0, metaChunks-1).Draw(t, "from"), rapid.IntRange(1, metaChunks).Draw(t, "n"), true)
	m.hits += len(refs)
	m.held = append(m.held, refs)
}

func (m *metaMachine) Unhold(t *rapid.T) {
	if len(m.held) > 0 {
		i := rapid.IntRange(0, len(m.held)-1).Draw(t, "hold")
		m.a.Unhold(m.held[i])
		m.held = append(m.held[:i], m.held[i+1:]...)
	}
}

func (m *metaMachine) Load(t *rapid.T) {
	if c := m.connected(t); c != nil && len(c.loads) < 4 {
		m.load(c, rapid.IntRange(0, metaChunks-1).Draw(t, "chunk"))
	}
}

// LoadNow does a whole load of a client in time.
func (m *metaMachine) LoadNow(t *rapid.T) {
	if c := m.connected(t); c != nil {
		if l := m.load(c, rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")); l != nil {
			m.copyOut(l)
			if !m.release(c, l) {
				t.Fatalf("a load in time was not confirmed")
			}
			m.confirmed++
		}
	}
}

func (m *metaMachine) Copy(t *rapid.T) {
	if c := m.client(t); c != nil && len(c.loads) > 0 {
		m.copyOut(rapid.SampledFrom(c.loads).Draw(t, "load"))
	}
}

func (m *metaMachine) Release(t *rapid.T) {
	if c := m.client(t); c != nil && len(c.loads) > 0 {
		l := rapid.SampledFrom(c.loads).Draw(t, "load")
		if m.release(c, l) {
			m.confirmed++
			if m.a.Release(l.owner, l.id) {
				t.Fatalf("the second release was confirmed")
			}
		}
	}
}

func (m *metaMachine) Expire(t *rapid.T) {
	m.expire(int64(rapid.IntRange(0, 12).Draw(t, "seconds")) * 1e9)
}

// Tick is time that passes before the daemon looks at its clock.
func (m *metaMachine) Tick(t *rapid.T) {
	m.clock.now += int64(rapid.IntRange(0, 8).Draw(t, "seconds")) * 1e9
}

func (m *metaMachine) Overdue(*rapid.T) { m.overdue() }

func (m *metaMachine) Answer(t *rapid.T) {
	if c := m.connected(t); c != nil {
		m.answer(c)
	}
}

func (m *metaMachine) Disconnect(t *rapid.T) {
	if c := m.client(t); c != nil && m.rarely(t) {
		m.disconnect(c)
	}
}

func (m *metaMachine) Kill(t *rapid.T) {
	if c := m.client(t); c != nil && m.rarely(t) {
		m.kill(c)
	}
}

func (m *metaMachine) Drop(t *rapid.T) {
	m.a.Drop(m.scope, keyOf(rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")))
}

func (m *metaMachine) Clear(t *rapid.T) {
	if m.rarely(t) {
		m.a.Clear(Filter{Any, Any})
		m.match(0, metaChunks, false)
	}
}

func (m *metaMachine) Scrub(t *rapid.T) {
	if _, bad := m.a.Scrub(context.Background(), int64(rapid.IntRange(1, 1<<18).Draw(t, "bytes"))); bad != 0 {
		t.Fatalf("%d corrupt parts", bad)
	}
}

func (m *metaMachine) PutGet(t *rapid.T) {
	n := rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")
	m.committing = 0
	b := make([]byte, metaLong)
	pattern(b, keyOf(n), 2, 0)
	r := m.a.Put(context.Background(), m.scope, Chunk{Key: keyOf(n), Parent: keyOf(n - 1), Ordinal: uint32(n), Tokens: 256}, 2, b)
	if (r.Outcome == storage.Rejected) != (r.Err != nil) {
		t.Fatalf("put: %v", r)
	}
	m.getAll(t.Fatalf, n)
}

// Damage changes one byte of a visible chunk, as a client that breaks the
// protocol could: it is found at the next use, and the chunk is gone.
func (m *metaMachine) Damage(t *rapid.T) {
	n := rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")
	if _, ok := m.visible[keyOf(n)]; !ok || m.opt.Mode == Guarded {
		return
	}
	p := m.a.Inspect(keyOf(n))
	i := slices.IndexFunc(p, func(in Inspection) bool { return in.Complete })
	pt := p[i].Parts[rapid.IntRange(0, 2).Draw(t, "part")]
	at := rapid.IntRange(0, int(pt.Descriptor.StoredLength)-1).Draw(t, "byte")
	m.maps[pt.Slot.Segment][int(pt.Slot.Offset)+at] ^= 1
	_, err := m.a.Tier(m.scope).Get(context.Background(), pt.Descriptor.ID, &pt.Descriptor, make([]byte, metaLong))
	if !errors.Is(err, fault.Corrupt) {
		t.Fatalf("a flipped byte was not found: %v", err)
	}
	m.match(n, 1, false)
}

// CrashDuring kills the daemon inside an operation.
func (m *metaMachine) CrashDuring(t *rapid.T) {
	c := m.connected(t)
	if c == nil || m.opt.Mode == Guarded || !m.rarely(t) || rapid.Bool().Draw(t, "again") {
		return
	}
	op := map[string]func(){
		"store": func() { m.Store(t) },
		"grant": func() { // the client never hears of it
			_, _ = m.a.Grant(c.owner, metaLong, 2, nil)
		},
		"put":    func() { m.PutGet(t) },
		"answer": func() { m.answer(c) },
		"kill":   func() { m.kill(c) },
		"drop":   func() { m.Drop(t) },
		"clear":  func() { m.a.Clear(Filter{Any, Any}) },
		"commit": func() { m.Commit(t) },
	}[rapid.SampledFrom([]string{"store", "grant", "put", "answer", "kill", "drop", "clear", "commit"}).Draw(t, "op")]
	rep := m.crashDuring(op, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "tear") })
	m.torn += rep.DroppedChunks
	m.crashes++
}

func (m *metaMachine) Crash(t *rapid.T) {
	if m.opt.Mode == Shared && m.rarely(t) && m.rarely(t) {
		m.crash()
		m.crashes++
	}
}

// Check runs after every operation.
func (m *metaMachine) Check(t *rapid.T) {
	if err := m.check(); err != nil {
		t.Fatalf("%v", err)
	}
}

func runMetamorphic(t *testing.T, opt Options) {
	var total metaMachine
	rapid.Check(t, func(t *rapid.T) {
		m := &metaMachine{world: newWorld(t, opt, metaParts())}
		t.Repeat(rapid.StateMachineActions(m))
		m.end()
		total.hits += m.hits
		total.publishes += m.publishes
		total.confirmed += m.confirmed
		total.crashes += m.crashes
		total.torn += m.torn
	})
	t.Logf("%d parts published, %d chunks hit, %d loads confirmed, %d crashes, %d torn chunks", total.publishes, total.hits, total.confirmed, total.crashes, total.torn)
	if total.publishes == 0 || total.hits == 0 || total.confirmed == 0 || opt.Mode == Shared && (total.crashes == 0 || total.torn == 0) {
		t.Fatalf("the runs never reached a publish, a hit, a confirmed load, a crash or a torn chunk")
	}
}

func TestMetamorphicShared(t *testing.T) {
	runMetamorphic(t, Options{Budget: 256 << 10, SegmentBytes: 128 << 10})
}

func TestMetamorphicGuarded(t *testing.T) {
	runMetamorphic(t, Options{Budget: 1280 << 10, SegmentBytes: 128 << 10, Mode: Guarded, WriteSegmentBytes: 256 << 10, WriteReserve: 1 << 20})
}
