package nvme

import (
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/segment"
)

// Classes of segments. Bit 0 of the number is that of pinned ones; the other
// bits are room for the tenant's quota group, of which there is one, 0.
const pinnedBit = 1

var (
	normal = segment.Class{ID: 0, Name: "normal"}
	pinned = segment.Class{ID: pinnedBit, Name: "pinned"}
)

func isPinned(class uint16) bool { return class&pinnedBit != 0 }

// Pinned is the tier whose Puts are pinned at once: what is written through it
// goes to segments that eviction never takes. What is there already stays where
// it is (Duplicate); Pin moves it. All else is as in the tier itself.
//
// A better chunk takes over the pin of the one that it replaces, whichever tier it
// is put through; where the share of pins has no room for both it is Full, and the
// pinned one stays.
//
// Pins take no more than Options.PinnedPercent of the budget; a Put beyond it is
// Full, and nothing is kept.
func (t *Tier) Pinned() *Tier { return &Tier{t.s, t.sc, pinned} }

// classOf is where parts of a chunk go. A better chunk than a pinned one is pinned
// too, or refused: no pin ends because a chunk is written again. The caller holds mu.
func (t *Tier) classOf(key *keys.Key) segment.Class {
	if old := t.s.dir.lookup(t.sc.number, key, isVisible); old != 0 && t.s.outside(old, pinned) == nil {
		return pinned
	}
	return t.class
}

// Takes says whether a better chunk, of so many bytes on the disk, may come in the
// place of the one that is here: where that is pinned, the share of pins must have
// room for both until the old one has gone.
func (t *Tier) Takes(key keys.Key, bytes int64) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.closed || t.s.off {
		return false
	}
	return !isPinned(t.classOf(&key).ID) || t.s.dir.pinned+t.s.pinning+bytes <= t.s.pinLimit()
}

// IsPinned says whether the chunk is visible and no part of it may be evicted.
func (t *Tier) IsPinned(key keys.Key) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.closed || t.s.off {
		return false
	}
	chunk := t.s.dir.lookup(t.sc.number, &key, isVisible)
	return chunk != 0 && t.s.outside(chunk, pinned) == nil
}

// Moved is what became of the chunks of one Pin or Unpin.
type Moved struct {
	// Chunks that are pinned, or unpinned, now, and the Bytes in whole pages that
	// were copied for it: none for those that were so before.
	Chunks int
	Bytes  int64
	// Absent chunks are not here; Full found no room, in the share of pins or in
	// the budget.
	Absent, Full int
}

// Pin copies visible chunks into pinned segments and gives back what they took.
// It takes them in the order of the list and returns when the copies are durable.
// A pin holds over a restart and the loss of the index. Room for the copies is not
// made of what the list still has to pin (Spare).
//
// Full: some found no room, with the bytes that the first would have needed and
// the limit, and stay as they are. Unavailable: the device failed or ctx is over;
// the counts are of what was done until then.
func (t *Tier) Pin(ctx context.Context, list []keys.Key) (Moved, error) {
	defer t.Spare(list)()
	return t.repin(ctx, list, pinned)
}

// Unpin copies chunks back into normal segments, as the newest there. Errors are
// those of Pin.
func (t *Tier) Unpin(ctx context.Context, list []keys.Key) (Moved, error) {
	return t.repin(ctx, list, normal)
}

// moveTries bounds how often a chunk is looked up again that was copied forward
// while it was moved.
const moveTries = 3

// moveBatch chunks take room twice until their old copies go.
const moveBatch = 64

func (t *Tier) repin(ctx context.Context, list []keys.Key, to segment.Class) (m Moved, full error) {
	if err := t.s.enter(); err != nil {
		return m, err
	}
	defer t.s.calls.Done()
	for batch := range slices.Chunk(list, moveBatch) {
		if err := t.moveSome(ctx, batch, to, &m, &full); err != nil {
			return m, err
		}
	}
	return m, full
}

func (t *Tier) moveSome(ctx context.Context, list []keys.Key, to segment.Class, m *Moved, full *error) error {
	number := t.s.begin()
	defer t.s.end(number)
	var old []segment.Location
	for _, key := range list {
		n, err := t.moveNow(ctx, key, to, &old)
		if errors.Is(err, fault.Full) && len(old) > 0 {
			// What the chunks before it took may be room enough.
			if err := t.s.release(ctx, old); err != nil {
				return err
			}
			old = nil
			n, err = t.moveNow(ctx, key, to, &old)
		}
		switch {
		case err == nil:
			m.Chunks++
			m.Bytes += n
		case errors.Is(err, fault.Miss), errors.Is(err, fault.Corrupt):
			m.Absent++
		case errors.Is(err, fault.Full):
			m.Full++
			if *full == nil {
				*full = err
			}
		default:
			return errors.Join(err, t.s.release(context.WithoutCancel(ctx), old))
		}
	}
	return t.s.release(ctx, old)
}

// moveNow is moveChunk, again where the chunk was copied forward meanwhile.
func (t *Tier) moveNow(ctx context.Context, key keys.Key, to segment.Class, old *[]segment.Location) (bytes int64, err error) {
	for range moveTries {
		if bytes, err = t.moveChunk(ctx, key, to, old); !errors.Is(err, fault.Miss) || !t.Has(key, 255) {
			break
		}
	}
	return bytes, err
}

// outside returns the parts of a chunk that a move to the class has to copy. The
// caller holds mu.
func (s *Store) outside(chunk uint32, class segment.Class) (recs []uint32) {
	for rec := s.dir.chunks.all[chunk].first; rec != 0; rec = s.dir.parts.all[rec].next {
		if s.dir.segments[s.dir.parts.all[rec].segment].pinned != isPinned(class.ID) {
			recs = append(recs, rec)
		}
	}
	return recs
}

// moveChunk copies what lies outside of the class, and appends where it lay: that
// goes when the index has forgotten it.
func (t *Tier) moveChunk(ctx context.Context, key keys.Key, to segment.Class, old *[]segment.Location) (bytes int64, err error) {
	s := t.s
	if err := ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "pin", "stopped")
	}
	s.mu.Lock()
	chunk := s.dir.lookup(t.sc.number, &key, isVisible)
	if chunk == 0 {
		s.mu.Unlock()
		return 0, fault.New(fault.Miss, "pin.chunk", "not here")
	}
	c := &s.dir.chunks.all[chunk]
	target := segment.Target{Class: to, Affinity: affinity(to, c.lane)}
	var parts []found
	for _, rec := range s.outside(chunk, to) {
		p := &s.dir.parts.all[rec]
		parts = append(parts, found{chunk, c.gen, rec, p.location(), segment.Claim{Scope: t.sc.Scope, ID: p.partID(key), Checksum: p.checksum}})
		bytes += p.location().Footprint()
	}
	if isPinned(to.ID) {
		err = s.reservePins(bytes)
	}
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if isPinned(to.ID) {
		defer s.releasePins(bytes)
	}
	if len(parts) == 0 {
		return 0, nil
	}
	return bytes, s.moveParts(ctx, target, parts, old)
}

// affinity of a class: pins are few and share one open segment.
func affinity(class segment.Class, lane uint8) uint64 {
	if isPinned(class.ID) {
		return 0
	}
	return uint64(lane)
}

// moveParts copies parts to the target, makes room for them, and enters their
// new places when they are durable. Its error is that of the first part that
// could not be moved.
func (s *Store) moveParts(ctx context.Context, target segment.Target, parts []found, old *[]segment.Location) error {
	to := make([]segment.Location, len(parts))
	err := s.copyParts(ctx, target, parts, to)
	if err == nil {
		err = s.device(s.segments.Sync(ctx))
	}
	s.mu.Lock()
	var unused []segment.Location
	for i := range parts {
		switch {
		case to[i].IsZero():
		case err == nil && s.relocate(&parts[i], to[i]):
			s.st.MovedBytes += to[i].Footprint()
			*old = append(*old, parts[i].location)
		default:
			unused = append(unused, to[i])
			if err == nil {
				err = fault.New(fault.Miss, "pin.chunk", "it moved or went meanwhile")
			}
		}
	}
	s.mu.Unlock()
	s.punch(unused)
	return err
}

// copyParts says in to where the copies lie.
func (s *Store) copyParts(ctx context.Context, target segment.Target, parts []found, to []segment.Location) error {
	left := make([]int, len(parts)) // those without a copy
	for i := range left {
		left[i] = i
	}
	for tries := 0; len(left) > 0; tries++ {
		s.ahead(ctx)
		moves := make([]segment.Move, len(left))
		for k, i := range left {
			moves[k] = parts[i].move()
		}
		var again []int
		var failed error
		err := s.segments.CopyForward(ctx, target, moves, func(k int, l segment.Location, err error) {
			switch i := left[k]; {
			case err == nil:
				to[i] = l
			case errors.Is(err, fault.Full):
				again = append(again, i)
			case failed == nil:
				failed = s.answered(&parts[i], err)
			}
		})
		switch {
		case failed != nil:
			return failed
		case err != nil && (!errors.Is(err, fault.Full) || tries == makeRoomTries):
			return err
		case err != nil:
			if err := s.makeRoom(ctx, tries >= makeRoomTries/2); err != nil {
				return err
			}
		}
		left = again
	}
	return nil
}

// reservePins admits bytes in whole pages to the share of pins, until
// releasePins; by then the directory counts them. The caller holds mu.
func (s *Store) reservePins(bytes int64) error {
	limit := s.pinLimit()
	if want := s.dir.pinned + s.pinning + bytes; want > limit {
		return fault.New(fault.Full, "nvme.pinned", "pins would take more than their share of the budget").With(want, limit)
	}
	s.pinning += bytes
	return nil
}

func (s *Store) releasePins(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinning -= bytes
}

// pinLimit is the share of the budget that pins may take.
func (s *Store) pinLimit() int64 {
	return s.opt.Segment.Budget / 100 * int64(s.opt.PinnedPercent)
}
