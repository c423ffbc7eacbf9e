package nvme

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// makeRoomTries bounds how often a put that finds no room drops a segment;
// others may take what it made room for.
const makeRoomTries = 16

// Put implements storage.Tier. The part is on the device when it returns.
func (t *Tier) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	if _, err := t.sc.layout.Admit(d, src); err != nil {
		return storage.Rejected, err
	}
	if err := ctx.Err(); err != nil {
		return storage.Rejected, fault.Wrap(fault.Unavailable, err, "put", "stopped")
	}
	if err := t.s.enter(); err != nil {
		return storage.Rejected, err
	}
	defer t.s.calls.Done()
	out, err := t.put(ctx, d, src)
	if err != nil {
		return storage.Rejected, err
	}
	return out, nil
}

func (t *Tier) put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	s, sc := t.s, t.sc
	s.mu.Lock()
	out, _, err := s.judge(sc, d)
	if out != 0 || err != nil {
		s.mu.Unlock()
		return out, err
	}
	lane := s.lane(sc, d)
	clears := sc.clears
	if isPinned(t.class.ID) {
		bytes := footprint(len(src))
		if err := s.reservePins(bytes); err != nil {
			s.mu.Unlock()
			return 0, err
		}
		defer s.releasePins(bytes)
	}
	s.mu.Unlock()
	number := s.begin()
	defer s.end(number)

	// Admit has verified the bytes; a second time would be a third of the CPU.
	record := segment.Record{Scope: sc.Scope, Part: d, Data: src, Verified: true}
	l, err := s.write(ctx, segment.Target{Class: t.class, Affinity: affinity(t.class, lane)}, record)

	s.mu.Lock()
	var locs []segment.Location
	if err == nil {
		s.st.PutParts++
		s.st.PutBytes += l.Footprint()
		s.st.UserBytes += int64(l.Length)
		s.earn(l.Footprint())
		out, locs, err = s.place(sc, d, l, lane, clears)
	}
	s.mu.Unlock()
	s.punch(locs)
	return out, err
}

// footprint is what so many bytes take on the disk.
func footprint(bytes int) int64 { return segment.Location{Length: uint32(bytes)}.Footprint() }

// begin numbers a call that writes parts and enters them afterwards; until end,
// no segment counts as settled that it may have written to.
func (s *Store) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := s.nextPut
	s.nextPut++
	s.putting[number] = struct{}{}
	return number
}

func (s *Store) end(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.putting, number)
}

// place decides about a part that was written. The caller holds mu.
func (s *Store) place(sc *scope, d *part.Descriptor, l segment.Location, lane uint8, clears uint64) (storage.Outcome, []segment.Location, error) {
	if sc.clears != clears {
		return 0, []segment.Location{l}, fault.New(fault.Miss, "put.epoch", "the namespace was cleared while the part was written")
	}
	if _, there := s.segments.Segment(l.Segment); !there || s.dropping[uint32(l.Segment)] {
		return 0, nil, fault.New(fault.Full, "nvme.budget", "the part's segment was dropped while it was written")
	}
	return s.assemble(sc, d, l, lane, nil)
}

// lane is the affinity of the chunk: its parent's, so that the chunks of a
// prompt lie together; a first chunk chooses by its key.
func (s *Store) lane(sc *scope, d *part.Descriptor) uint8 {
	for _, key := range []*keys.Key{&d.ID.Chunk, &d.Parent} {
		if rec := s.dir.lookup(sc.number, key, anyState); rec != 0 {
			return s.dir.chunks.all[rec].lane
		}
	}
	return d.ID.Chunk[keyBytes]
}

// write appends one record, and makes room for it.
func (s *Store) write(ctx context.Context, t segment.Target, r segment.Record) (segment.Location, error) {
	s.ahead(ctx)
	for tries := 0; ; tries++ {
		locs, err := s.segments.Append(ctx, t, []segment.Record{r})
		if err == nil {
			return locs[0], s.device(nil)
		}
		if !errors.Is(err, fault.Full) || tries == makeRoomTries {
			return segment.Location{}, s.device(err)
		}
		if err := s.makeRoom(ctx, tries >= makeRoomTries/2); err != nil {
			return segment.Location{}, err
		}
	}
}

// earn lets copying forward use a share of what was put, up to that of two
// segments. The caller holds mu.
func (s *Store) earn(bytes int64) {
	s.earned = min(s.earned+bytes*int64(s.opt.ForwardPercent)/100, 2*s.segmentBytes*int64(s.opt.ForwardPercent)/100)
}
