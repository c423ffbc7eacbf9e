package arena

import (
	"encoding/binary"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"golang.org/x/sys/unix"
)

// AdoptReport says what a successor found.
type AdoptReport struct {
	Chunks, Parts int
	Bytes         int64
	// Orphans are owners of the predecessor whose processes may still write to
	// slots they were granted. They are in quarantine until Gone.
	Orphans []Owner
	// DroppedRecords were damaged, half-written, overlapping or out of place;
	// DroppedChunks lacked parts or had parts that disagree; UnfinishedParts
	// waited for other parts.
	DroppedRecords, DroppedChunks, UnfinishedParts int
}

// Adopt takes over the memory of a predecessor that does not run any more
// (PROTOCOL.md section 10). Sizes come from the sidecar; Budget, SegmentBytes,
// Prefault and HugePages of opt are not looked at. On success the descriptors
// belong to the Arena, on an error still to the caller. Corrupt: the sidecar's
// header is damaged. Invalid: the descriptors are not what the header says, or
// the mode is guarded.
func Adopt(opt Options, h Handles) (*Arena, AdoptReport, error) {
	var rep AdoptReport
	opt = opt.withDefaults()
	if opt.Mode != Shared {
		return nil, rep, fault.New(fault.Invalid, "arena.mode", "only a shared arena can be adopted").With(opt.Mode, Shared)
	}
	a := &Arena{opt: opt}
	limits, err := a.mapHandles(h)
	if err == nil {
		err = a.prepare()
	}
	if err != nil {
		a.abandonMaps()
		return nil, rep, err
	}
	a.opt.Budget, a.opt.SegmentBytes = a.lay.totalBytes, a.lay.segmentBytes
	a.recHigh, a.gen, a.genLimit = limits.high, limits.gen-1, limits.gen
	ad := adoption{Arena: a, rep: &rep, bad: map[uint32]bool{}}
	ad.run()
	return a, rep, nil
}

type counters struct{ high, gen uint32 }

// mapHandles maps what the predecessor left and checks that it fits together.
func (a *Arena) mapHandles(h Handles) (c counters, err error) {
	invalid := func(err error) error {
		return fault.Wrap(fault.Invalid, err, "arena.handles", "not an arena's descriptors")
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.Sidecar, &st); err != nil {
		return c, invalid(err)
	}
	head := make([]byte, headerBytes)
	if n, err := unix.Pread(h.Sidecar, head, 0); err != nil || n != headerBytes {
		return c, fault.Wrap(fault.Corrupt, err, "arena.sidecar", "no header").With(n, headerBytes)
	}
	if a.lay, err = parseHeader(head, st.Size); err != nil {
		return c, err
	}
	if c.high, err = parseCounter(head, highAt); err != nil {
		return c, err
	}
	if c.gen, err = parseCounter(head, genLimitAt); err != nil {
		return c, err
	}
	if c.high < 1 || c.high > a.lay.records {
		return c, fault.New(fault.Corrupt, "arena.sidecar", "number of used records").With(c.high, a.lay.records)
	}
	if len(h.Segments) != a.lay.segments() {
		return c, fault.New(fault.Invalid, "arena.handles", "wrong number of segments").With(len(h.Segments), a.lay.segments())
	}
	if a.sideM, err = adoptMemory(h.Sidecar, st.Size); err != nil {
		return c, invalid(err)
	}
	inodes := map[uint64]bool{}
	for i, fd := range h.Segments {
		size := min(a.lay.segmentBytes, a.lay.totalBytes-int64(i)*a.lay.segmentBytes)
		m, err := adoptMemory(fd, size)
		if err != nil {
			return c, invalid(err)
		}
		a.segs = append(a.segs, m)
		if err := unix.Fstat(fd, &st); err != nil || inodes[st.Ino] {
			return c, fault.New(fault.Invalid, "arena.handles", "the same segment twice").With(i, nil)
		}
		inodes[st.Ino] = true
	}
	return c, nil
}

// abandonMaps unmaps without closing the caller's descriptors.
func (a *Arena) abandonMaps() {
	for _, m := range append(slices.Clone(a.segs), a.sideM) {
		if m != nil && m.mem != nil {
			_ = unix.Munmap(m.mem)
		}
	}
	a.segs, a.sideM = nil, nil
	_ = a.unmap()
}

// adoption is the work of one Adopt. Nobody else sees the arena yet.
type adoption struct {
	*Arena
	rep *AdoptReport
	// bad chunks have parts that disagree.
	bad map[uint32]bool
}

func (ad *adoption) run() {
	ad.each(kindName, ad.addName)
	ad.fillNames()
	ad.each(kindGranted, ad.addGrant)
	ad.each(kindPart, ad.addPart)
	ad.sweep()
	ad.space.freeAll()
	ad.space.adoptSlabs()
	for rec := uint32(1); rec < ad.recHigh; rec++ {
		if ad.ent[rec].state == stPending {
			ad.finish(rec)
		}
	}
	for o := range ad.owners {
		ad.rep.Orphans = append(ad.rep.Orphans, o)
	}
	slices.Sort(ad.rep.Orphans)
	ad.st = Stats{Chunks: ad.st.Chunks, Parts: ad.st.Parts}
}

// each calls f for the sound records of a kind; f says whether it took it.
func (ad *adoption) each(kind uint16, f func(rec uint32, r *record) bool) {
	for rec := uint32(1); rec < ad.recHigh; rec++ {
		r := &ad.side.recs[rec]
		if r.kind() != kind {
			continue
		}
		if !r.sound(rec) || !f(rec, r) {
			ad.rep.DroppedRecords++
			r.begin()
		}
	}
}

func (ad *adoption) addName(rec uint32, r *record) bool {
	kind, num := int(r.group), int(r.namespace)
	if kind == nameTenant {
		num = int(r.tenant)
	}
	if kind > nameTenant || num >= MaxNames {
		return false
	}
	n := &ad.names
	for len(n.of[kind]) <= num {
		n.of[kind] = append(n.of[kind], nil)
	}
	if _, dup := n.num[kind][r.key]; dup || n.of[kind][num] != nil {
		return false
	}
	n.of[kind][num] = &name{id: r.key, rec: rec, epoch: binary.LittleEndian.Uint64(r.parent[:])}
	n.num[kind][r.key] = uint16(num)
	ad.ent[rec].state = stMeta
	return true
}

// fillNames puts something where a damaged record left a number without a
// name. Nobody can get that number, so its chunks are out of reach and are
// dropped.
func (ad *adoption) fillNames() {
	for kind := range ad.names.of {
		for i, n := range ad.names.of[kind] {
			if n == nil {
				ad.names.of[kind][i] = &name{}
			}
		}
	}
}

func (ad *adoption) addGrant(rec uint32, r *record) bool {
	if r.owner() == 0 || r.table != 0 || r.ext != 0 || r.flags != 0 || !ad.space.adoptSlot(r.segment, r.page, r.class, rec) {
		return false
	}
	own := ad.owners[r.owner()]
	if own == nil {
		own = &owner{id: r.owner(), detached: true, revoked: map[uint32]int64{}, loads: map[uint64]*loadState{}}
		ad.owners[own.id] = own
	}
	ad.ent[rec] = entry{state: stGranted, gen: ad.nextGen()}
	ad.pushBack(&own.live, rec)
	return true
}

func (ad *adoption) addPart(rec uint32, r *record) bool {
	s := scopeOf(r)
	if !ad.scopeKnown(s) || ad.names.of[nameNamespace][s.Namespace].rec == 0 || ad.names.of[nameTenant][s.Tenant].rec == 0 {
		return false
	}
	if r.parts() < 1 || r.parts() > MaxParts || r.table < 1 || r.table > part.MaxTable ||
		r.flags&^(flagUnsummed|flagBasis) != 0 || uint64(r.stored) > uint64(r.class)*PageBytes {
		return false
	}
	if !ad.takeExts(rec, r) {
		return false
	}
	var d part.Descriptor
	if ad.describe(rec, &d) != nil || !ad.space.adoptSlot(r.segment, r.page, r.class, rec) {
		ad.dropExts(r, extsFor(r.values()))
		return false
	}
	e := &ad.ent[rec]
	*e = entry{gen: ad.nextGen(), quality: r.quality}
	hash := ad.index.Hash(r.key[:])
	head := ad.lookup(hash, &r.key, s, func(e *entry) bool { return e.state == stPending && e.quality == r.quality })
	if head == 0 {
		if ad.index.Insert(hash, rec) == nil {
			e.state, e.count = stPending, 1
			ad.pending.chunk++
			ad.pending.pages += int64(r.class)
			return true
		}
	} else if h := &ad.side.recs[head]; h.parts() == r.parts() && h.parent == r.parent && h.ordinal == r.ordinal && h.tokens == r.tokens {
		if dup, after := ad.find(&cursor{}, head, r.id()); dup == 0 {
			e.state, e.next = stMember, ad.ent[after].next
			ad.ent[after].next = rec
			ad.ent[head].count++
			ad.pending.pages += int64(r.class)
			return true
		}
	}
	ad.bad[head] = true
	*e = entry{}
	ad.space.unadoptSlot(r.segment, r.page, r.class)
	ad.dropExts(r, extsFor(r.values()))
	return false
}

// takeExts claims the extensions of a part, if the whole chain is sound and
// its own.
func (ad *adoption) takeExts(rec uint32, r *record) bool {
	at, want := r.ext, extsFor(r.values())
	for n := range want {
		if at == 0 || at >= ad.recHigh || ad.ent[at].state != stFree ||
			ad.side.recs[at].kind() != kindExt || !ad.side.recs[at].sound(at) || ad.side.recs[at].asExt().owner != rec {
			ad.dropExts(r, n)
			return false
		}
		ad.ent[at].state = stMeta
		at = ad.side.recs[at].asExt().next
	}
	return true
}

// dropExts gives back the first n extensions that takeExts claimed.
func (ad *adoption) dropExts(r *record, n int) {
	at := r.ext
	for range n {
		ad.ent[at].state = stFree
		at = ad.side.recs[at].asExt().next
	}
}

// sweep frees every record that is not in use.
func (ad *adoption) sweep() {
	for rec := ad.recHigh - 1; rec > 0; rec-- {
		if ad.ent[rec].state != stFree {
			ad.recUsed++
			continue
		}
		if ad.side.recs[rec].kind() == kindKept {
			ad.rep.UnfinishedParts++
		}
		ad.side.recs[rec].clear()
		ad.ent[rec] = entry{next: ad.recFree}
		ad.recFree = rec
	}
}

// finish publishes a whole chunk and drops any other.
func (ad *adoption) finish(head uint32) {
	if ad.bad[head] || int(ad.ent[head].count) != ad.side.recs[head].parts() {
		ad.rep.DroppedChunks++
		ad.drop(head, Pending, Cause{Text: "adoption found it incomplete"})
		return
	}
	ad.rep.Chunks++
	ad.rep.Parts += ad.side.recs[head].parts()
	ad.rep.Bytes += ad.chunkPages(head) * PageBytes
	ad.publish(head)
}
