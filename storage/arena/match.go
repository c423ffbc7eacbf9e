package arena

import (
	"math"
	"unsafe"

	"github.com/larderkv/larder/api/keys"
)

// matchBatch keys are looked up together. Each step of a lookup (index, entry,
// record) is a load from memory that no cache holds; done for a whole batch
// before the next step, the loads of a step overlap.
const matchBatch = 64

// Match appends references to the longest prefix of the n*32 bytes of keys
// that is visible in the scope in a quality no worse than worst (as in
// larder.v1.Match: 0 = exact only), and returns the worst quality among them.
// With hold each is held until Unhold: it is not evicted. The chunks count as
// used, the first most recently.
func (a *Arena) Match(s Scope, ks []byte, worst uint8, hold bool, dst []ChunkRef) (refs []ChunkRef, quality uint8) {
	list := unsafe.Slice((*keys.Key)(unsafe.Pointer(unsafe.SliceData(ks))), len(ks)/keys.Size)
	base := len(dst)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return dst, 0
	}
	for len(list) > 0 {
		n := min(len(list), matchBatch)
		var got int
		dst, got = a.matchSome(s, list[:n], worst, dst)
		if got < n {
			break
		}
		list = list[n:]
	}
	for i := len(dst) - 1; i >= base; i-- {
		head := dst[i].Index
		e := &a.ent[head]
		quality = max(quality, e.quality)
		switch {
		case hold:
			if e.state == stListed {
				a.policy.Remove(head)
				e.state = stPublished
			}
			e.link++
		case e.state == stListed:
			a.policy.Touch(head)
		}
	}
	return dst, quality
}

func (a *Arena) matchSome(s Scope, list []keys.Key, worst uint8, dst []ChunkRef) ([]ChunkRef, int) {
	var hash, cand [matchBatch]uint32
	sink := uint32(0)
	tab := a.index.Tab
	for i := range list {
		hash[i] = a.index.Hash(list[i][:])
		sink += tab[a.index.Start(hash[i])].Rec
	}
	for i := range list {
		for p := a.index.Start(hash[i]); tab[p].Rec != 0; p = a.index.Step(p) {
			if tab[p].Hash == hash[i] {
				cand[i] = tab[p].Rec
				break
			}
		}
	}
	for i := range list {
		sink += a.ent[cand[i]].gen + uint32(a.side.recs[cand[i]].key[0])
	}
	a.sink = sink // keeps the loads above
	for i := range list {
		head := cand[i]
		if head == 0 {
			return dst, i
		}
		if !a.ent[head].state.visible() || !a.is(head, &list[i], s) {
			head = a.lookup(hash[i], &list[i], s, isVisible)
		}
		if head == 0 || a.ent[head].quality > worst || a.ent[head].link == math.MaxUint32 {
			return dst, i
		}
		dst = append(dst, ChunkRef{head, a.ent[head].gen})
	}
	return dst, len(list)
}

// Unhold ends one hold on each chunk. References to chunks that are gone are
// ignored. Given in prompt order, the first chunk ends as the hottest.
func (a *Arena) Unhold(refs []ChunkRef) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	for i := len(refs) - 1; i >= 0; i-- {
		if !a.current(refs[i]) {
			continue
		}
		if e := &a.ent[refs[i].Index]; e.link > 0 {
			e.link--
			a.settlePins(refs[i].Index)
		}
	}
}
