package arena

import "github.com/larderkv/larder/api/keys"

// Drop removes a chunk, visible or assembling, and says whether there was a
// visible one. Its epoch stays: a commit under way may store it again.
func (a *Arena) Drop(s Scope, key keys.Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	visible := false
	hash := a.index.Hash(key[:])
	for {
		head := a.lookup(hash, &key, s, func(*entry) bool { return true })
		if head == 0 {
			return visible
		}
		visible = visible || a.ent[head].state.visible()
		a.drop(head, Deleted, Cause{Text: "deleted"})
	}
}

// clearBatch records are looked at under one hold of the lock.
const clearBatch = 4096

// Clear drops all chunks that the filter selects and bumps the epoch of what it
// names, so that grants of before are rejected at commit. When it returns none
// of them is visible, nor will be. Other calls run in between, so a chunk
// stored meanwhile may go too. A number that nobody registered selects nothing.
func (a *Arena) Clear(f Filter) (chunks int, bytes int64) {
	if !a.bumpEpochs(f) {
		return 0, 0
	}
	for rec, more := uint32(1), true; more; rec += clearBatch {
		var c int
		var b int64
		c, b, more = a.clearFrom(rec, f)
		chunks, bytes = chunks+c, bytes+b
	}
	return chunks, bytes
}

// clearFrom drops the selected chunks that have any record in the batch at
// rec. Looking at heads alone would not do: between two batches a chunk that
// was assembling can become complete and get a head that was passed already.
func (a *Arena) clearFrom(rec uint32, f Filter) (chunks int, bytes int64, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || rec >= a.recHigh {
		return 0, 0, false
	}
	for i := rec; i < min(rec+clearBatch, a.recHigh); i++ {
		head := i
		if a.ent[i].state == stMember {
			head = a.ent[i].link
		}
		st := a.ent[head].state
		if !st.visible() && st != stPending || !f.selects(scopeOf(&a.side.recs[head])) {
			continue
		}
		if st.visible() {
			chunks++
		}
		bytes += a.chunkPages(head) * PageBytes
		a.drop(head, Cleared, Cause{Text: "cleared"})
	}
	return chunks, bytes, true
}

func (f Filter) selects(s Scope) bool {
	return (f.Namespace == Any || f.Namespace == int(s.Namespace)) && (f.Tenant == Any || f.Tenant == int(s.Tenant))
}

// bumpEpochs is false where the filter names nothing.
func (a *Arena) bumpEpochs(f Filter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	for kind, num := range [2]int{f.Namespace, f.Tenant} {
		if num != Any && (num < 0 || num >= len(a.names.of[kind])) {
			return false
		}
	}
	a.clears++
	bump := func(kind int, num uint16) {
		n := a.names.of[kind][num]
		n.epoch++
		n.cleared = a.clears
		a.saveName(kind, num)
	}
	switch {
	case f.Namespace == Any && f.Tenant == Any:
		a.clearedAll = a.clears
		for num := range a.names.of[nameNamespace] {
			bump(nameNamespace, uint16(num))
		}
	case f.Tenant == Any:
		bump(nameNamespace, uint16(f.Namespace))
	default:
		// Also where both are given: bumping one of the two rejects a few
		// grants too many and none too few.
		bump(nameTenant, uint16(f.Tenant))
	}
	return true
}
