package arena

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/larderkv/larder/api/keys"
	"golang.org/x/sys/unix"
)

// fakeClock moves only when told.
type fakeClock struct{ now int64 }

func (c *fakeClock) MonotonicNanos() int64 { return c.now }

// world is an arena, simulated client processes that map it on their own, and
// a model of what is visible. The clients are correct and arbitrarily slow:
// they stop anywhere and go on at any time. They write to a slot until they
// have given it up (commit, return, answer) or are dead, whatever the arena
// thinks of their session, and they copy from a slot until they have released
// or answered.
type world struct {
	tb      failer
	opt     Options
	clock   *fakeClock
	a       *Arena
	maps    [][]byte // the clients' own mapping of the segments
	spec    NamespaceSpec
	scope   Scope
	clients []*simClient
	owner   Owner
	loadID  uint64
	// visible: key -> variant of the bytes, as outcomes and the observer said.
	visible map[keys.Key]uint32
	// committing is what the next Published is about.
	committing uint32
	// adopting: what a successor may bring back, nil outside of Adopt.
	adopting map[keys.Key][]uint32
	// orphans of adoptions: their processes are told apart by nobody here, so
	// they are gone at the end.
	orphans []Owner
	dropped map[Reason]int
	held    [][]ChunkRef
}

type simClient struct {
	owner   Owner
	session bool // as the client sees it
	ended   []Owner
	grants  []simGrant
	loads   []*simLoad
	write   []byte // guarded mode: mapping of the write segment
}

// simGrant is a slot that the client may write until it gives it up.
type simGrant struct {
	owner    Owner
	slot     Slot
	deadline int64
	length   int
	revoked  bool
	// What was written last.
	written bool
	key     keys.Key
	part    int
	variant uint32
}

type simLoad struct {
	owner   Owner
	id      uint64
	leased  []Leased
	key     keys.Key
	variant uint32
	// copied: the copies have ended, wrong says that bytes differed.
	copied, wrong bool
	revoked       bool
}

func newWorld(tb failer, opt Options, parts []PartSpec) *world {
	w := &world{tb: tb, opt: opt, clock: &fakeClock{now: 1e9}, visible: map[keys.Key]uint32{}, dropped: map[Reason]int{}}
	w.spec = NamespaceSpec{Fingerprint: [32]byte{7}, Parts: parts}
	w.opt.Clock, w.opt.Observer = w.clock, w
	a, err := Open(w.opt)
	if err != nil {
		tb.Fatal(err)
	}
	w.use(a)
	return w
}

// use makes a the world's arena: registers names and maps the segments anew,
// as clients do.
func (w *world) use(a *Arena) {
	w.a = a
	ns, err := a.Namespace(w.spec)
	w.must(err)
	tenant, err := a.Tenant([32]byte{9})
	w.must(err)
	w.scope = Scope{ns, tenant}
	for _, m := range w.maps {
		w.must(unix.Munmap(m))
	}
	w.maps = nil
	h := a.Handles()
	prot := unix.PROT_READ
	if w.opt.Mode == Shared {
		prot |= unix.PROT_WRITE
	}
	for i, fd := range h.Segments {
		m, err := unix.Mmap(fd, 0, int(h.SegmentBytes[i]), prot, unix.MAP_SHARED)
		w.must(err)
		w.maps = append(w.maps, m)
	}
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) failf(format string, args ...any) {
	w.tb.Helper()
	w.tb.Fatalf(format, args...)
}

func (w *world) Published(i ChunkInfo) {
	if i.Parts != i.Expected {
		w.failf("published with %d of %d parts", i.Parts, i.Expected)
	}
	if w.adopting == nil {
		w.visible[i.Key] = w.committing
		return
	}
	may := w.adopting[i.Key]
	switch {
	case len(may) == 0:
		w.failf("adoption made chunk %x visible", i.Key[:4])
	case slices.Contains(may, uint32(i.Quality)): // the metamorphic runner's variants
		w.visible[i.Key] = uint32(i.Quality)
	default:
		w.visible[i.Key] = may[0]
	}
}

func (w *world) Dropped(i ChunkInfo, r Reason, _ Cause) {
	w.dropped[r]++
	if r != Pending {
		delete(w.visible, i.Key)
	}
}

// keyOf makes the key of the n-th chunk.
func keyOf(n int) (k keys.Key) {
	binary.LittleEndian.PutUint64(k[:], uint64(n)+1)
	k[31] = 0xEE
	return k
}

// pattern fills b with bytes that name key, part and variant.
func pattern(b []byte, k keys.Key, part int, variant uint32) {
	for i, seed := 0, patternSeed(k, part, variant); i < len(b); i += 512 {
		binary.LittleEndian.PutUint64(b[i:], seed+uint64(i))
	}
}

func isPattern(b []byte, k keys.Key, part int, variant uint32) bool {
	for i, seed := 0, patternSeed(k, part, variant); i < len(b); i += 512 {
		if binary.LittleEndian.Uint64(b[i:]) != seed+uint64(i) {
			return false
		}
	}
	return true
}

func patternSeed(k keys.Key, part int, variant uint32) uint64 {
	return binary.LittleEndian.Uint64(k[:])<<32 ^ uint64(part)<<24 ^ uint64(variant)*0x9E3779B97F4A7C15
}

func (w *world) attach() *simClient {
	w.owner++
	c := &simClient{owner: w.owner}
	if err := w.a.Attach(c.owner, w.scope); err != nil {
		return nil // guarded: no write segment left
	}
	c.session = true
	if fd, n, ok := w.a.WriteSegment(c.owner); ok {
		m, err := unix.Mmap(fd, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		w.must(err)
		c.write = m
	}
	w.clients = append(w.clients, c)
	return c
}

// reattach opens another session of the same process.
func (w *world) reattach(c *simClient) {
	if c.session || c.write != nil {
		return
	}
	w.owner++
	w.must(w.a.Attach(w.owner, w.scope))
	c.owner, c.session = w.owner, true
}

func (w *world) slotBytes(c *simClient, s Slot, n int) []byte {
	if s.Segment == WriteSegment {
		return c.write[s.Offset:][:n]
	}
	return w.maps[s.Segment][s.Offset:][:n]
}

func (w *world) grant(c *simClient, length, n int) error {
	gs, err := w.a.Grant(c.owner, int64(length), n, nil)
	for _, g := range gs {
		c.grants = append(c.grants, simGrant{owner: c.owner, slot: g.Slot, deadline: g.Deadline, length: length})
	}
	return err
}

// writeTo is a copy of the client into a slot it has not given up, perhaps long
// after the session has ended.
func (w *world) writeTo(c *simClient, i int, k keys.Key, part int, variant uint32) {
	g := &c.grants[i]
	g.written, g.key, g.part, g.variant = true, k, part, variant
	pattern(w.slotBytes(c, g.slot, g.length), k, part, variant)
}

// commit hands over all grants of the current session that hold parts of k in
// one variant.
func (w *world) commit(c *simClient, chunk Chunk, variant uint32) []Result {
	var parts []PartCommit
	var rest []simGrant
	for _, g := range c.grants {
		if g.owner == c.owner && g.written && g.key == chunk.Key && g.variant == variant {
			parts = append(parts, PartCommit{Part: g.part, Slot: g.slot, Length: uint64(g.length)})
			continue
		}
		rest = append(rest, g)
	}
	if len(parts) == 0 {
		return nil
	}
	c.grants = rest
	w.committing = variant
	return w.a.Commit(context.Background(), c.owner, chunk, parts, nil)
}

// expire advances the clock and delivers revokes.
func (w *world) expire(d int64) {
	w.clock.now += d
	for _, r := range w.a.Expire(w.clock.now) {
		for _, c := range w.clients {
			if c.owner != r.Owner || !c.session {
				continue
			}
			for i := range c.grants {
				if g := &c.grants[i]; g.owner == c.owner && slices.ContainsFunc(r.Grants, func(s Slot) bool { return s == g.slot }) {
					g.revoked = true
				}
			}
			for _, l := range c.loads {
				if l.owner == c.owner && slices.Contains(r.Loads, l.id) {
					l.revoked = true
				}
			}
		}
	}
}

// overdue does what the daemon does.
func (w *world) overdue() {
	for _, o := range w.a.Overdue(w.clock.now) {
		for _, c := range w.clients {
			if c.owner == o && c.session {
				w.disconnect(c)
			}
		}
	}
}

// answer gives up everything revoked.
func (w *world) answer(c *simClient) {
	var slots []Slot
	var loads []uint64
	var rest []simGrant
	for _, g := range c.grants {
		if g.revoked && g.owner == c.owner {
			slots = append(slots, g.slot)
		} else {
			rest = append(rest, g)
		}
	}
	c.grants = rest
	c.loads = slices.DeleteFunc(c.loads, func(l *simLoad) bool {
		if l.revoked && l.owner == c.owner {
			loads = append(loads, l.id)
			return true
		}
		return false
	})
	w.a.AnswerRevoke(c.owner, slots, loads)
}

// disconnect ends the session; the process lives and keeps what it knows.
func (w *world) disconnect(c *simClient) {
	if !c.session {
		return
	}
	c.session = false
	w.a.Detach(c.owner)
	c.ended = append(c.ended, c.owner)
}

// kill ends the process.
func (w *world) kill(c *simClient) {
	w.disconnect(c)
	for _, o := range c.ended {
		w.a.Gone(o)
	}
	if c.write != nil {
		w.must(unix.Munmap(c.write))
	}
	w.clients = slices.DeleteFunc(w.clients, func(x *simClient) bool { return x == c })
}

func (w *world) match(from, n int, hold bool) []ChunkRef {
	var ks []byte
	for i := from; i < from+n; i++ {
		k := keyOf(i)
		ks = append(ks, k[:]...)
	}
	refs, _ := w.a.Match(w.scope, ks, 255, hold, nil)
	want := 0
	for want < n {
		if _, ok := w.visible[keyOf(from+want)]; !ok {
			break
		}
		want++
	}
	if len(refs) != want {
		w.failf("match of chunks %d to %d found %d, the model says %d", from, from+n-1, len(refs), want)
	}
	return refs
}

// load leases all parts of a chunk and verifies them.
func (w *world) load(c *simClient, n int) *simLoad {
	refs := w.match(n, 1, false)
	if len(refs) == 0 || !c.session {
		return nil
	}
	w.loadID++
	ls, err := w.a.Lease(c.owner, w.loadID, refs[0], nil, nil)
	w.must(err)
	l := &simLoad{owner: c.owner, id: w.loadID, leased: ls, key: keyOf(n), variant: w.visible[keyOf(n)]}
	if len(ls) != max(len(w.spec.Parts), 1) {
		w.failf("%d parts leased", len(ls))
	}
	for _, x := range ls {
		if err := w.a.Verify(x); err != nil {
			w.failf("verify: %v", err)
		}
	}
	c.loads = append(c.loads, l)
	return l
}

// copyOut is the client's copy, at any time.
func (w *world) copyOut(l *simLoad) {
	l.copied, l.wrong = true, false
	for _, x := range l.leased {
		if !isPattern(w.maps[x.Slot.Segment][x.Slot.Offset:][:x.Length], l.key, x.Part, l.variant) {
			l.wrong = true
		}
	}
}

// release ends a load; what is confirmed must have been right.
func (w *world) release(c *simClient, l *simLoad) bool {
	c.loads = slices.DeleteFunc(c.loads, func(x *simLoad) bool { return x == l })
	late := len(l.leased) > 0 && w.clock.now > l.leased[0].Deadline
	if !w.a.Release(l.owner, l.id) {
		return false
	}
	if late {
		w.failf("a load was confirmed after its deadline")
	}
	if !l.copied {
		w.copyOut(l)
	}
	if l.wrong {
		w.failf("a confirmed load of chunk %x returned other bytes", l.key[:4])
	}
	return true
}

// end releases everything and checks that it came back.
func (w *world) end() {
	for _, h := range w.held {
		w.a.Unhold(h)
	}
	for len(w.clients) > 0 {
		w.kill(w.clients[0])
	}
	for _, o := range w.orphans {
		w.a.Gone(o)
	}
	w.a.Clear(Filter{Any, Any})
	if err := checkEmpty(w.a); err != nil {
		w.failf("at the end: %v", err)
	}
	w.must(w.a.Close())
	for _, m := range w.maps {
		w.must(unix.Munmap(m))
	}
}
