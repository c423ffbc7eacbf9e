package nvme

import (
	"maps"
	"slices"

	"github.com/larderkv/larder/api/keys"
)

// spared are chunks that wait to be pinned.
type spared struct {
	scope uint16
	keys  []keys.Key
}

// Spare keeps eviction from the segments in which parts of visible chunks of the
// list lie, until done is called: whoever pins a prompt makes room for the pins of
// its first chunks, and the oldest segments, which would go for it, may hold the
// others. A segment is free again once the chunks in it have been moved. Who finds
// no other segment to drop meanwhile gets Full.
//
// It keeps the list. Pin spares its own.
func (t *Tier) Spare(list []keys.Key) (done func()) {
	sp := &spared{t.sc.number, list}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.sparing[sp] = struct{}{}
	return func() {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		delete(t.s.sparing, sp)
	}
}

// spareBatch chunks are looked up under one hold of the mutex.
const spareBatch = 64

// sparedSegments are those that eviction has to leave alone, by sequence. They are
// looked up when room is made, which is rare beside everything that would have to
// keep a count.
func (s *Store) sparedSegments() map[uint32]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sparing) == 0 {
		return nil
	}
	list := slices.Collect(maps.Keys(s.sparing))
	segments := map[uint32]bool{}
	for _, sp := range list {
		for batch := range slices.Chunk(sp.keys, spareBatch) {
			for i := range batch {
				if chunk := s.dir.lookup(sp.scope, &batch[i], isVisible); chunk != 0 {
					for rec := s.dir.chunks.all[chunk].first; rec != 0; rec = s.dir.parts.all[rec].next {
						segments[s.dir.parts.all[rec].segment] = true
					}
				}
			}
			s.mu.Unlock() // others have a turn
			s.mu.Lock()
		}
	}
	return segments
}
