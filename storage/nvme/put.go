package nvme

import (
	"context"
	"errors"
	"maps"
	"slices"

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
	outs, err := t.PutParts(ctx, []storage.PartBytes{{Part: d, Bytes: src}})
	return outs[0], err
}

// PutParts is a Put of each part of one chunk, written together: small ones
// share a group, large ones are under way side by side. Outcomes are in the order
// of the list, and Rejected for what was not kept; the error is the first one's.
// Nothing is written where a part is refused before that, or belongs to another
// chunk than the first one (Invalid).
func (t *Tier) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	outs := make([]storage.Outcome, len(list))
	for i := range outs {
		outs[i] = storage.Rejected
	}
	for i := range list {
		if _, err := t.sc.layout.Admit(list[i].Part, list[i].Bytes); err != nil {
			return outs, err
		}
		if list[i].Part.ID.Chunk != list[0].Part.ID.Chunk {
			return outs, fault.New(fault.Invalid, "put.parts", "parts of several chunks")
		}
	}
	if err := ctx.Err(); err != nil {
		return outs, fault.Wrap(fault.Unavailable, err, "put", "stopped")
	}
	if err := t.s.enter(); err != nil {
		return outs, err
	}
	defer t.s.calls.Done()
	return outs, t.put(ctx, list, outs)
}

func (t *Tier) put(ctx context.Context, list []storage.PartBytes, outs []storage.Outcome) error {
	s, sc := t.s, t.sc
	var recs []segment.Record
	var from []int // of each record in the list
	var bytes int64
	s.mu.Lock()
	for i := range list {
		out, _, err := s.judge(sc, list[i].Part)
		switch {
		case err != nil:
			s.mu.Unlock()
			return err
		case out != 0:
			outs[i] = out
			continue
		}
		// Admit has verified the bytes; a second time would be a third of the CPU.
		recs = append(recs, segment.Record{Scope: sc.Scope, Part: list[i].Part, Data: list[i].Bytes, Verified: true})
		from = append(from, i)
		bytes += footprint(len(list[i].Bytes))
	}
	if len(recs) == 0 {
		s.mu.Unlock()
		return nil
	}
	lane := s.lane(sc, recs[0].Part)
	clears := sc.clears
	class := t.classOf(&recs[0].Part.ID.Chunk)
	if isPinned(class.ID) {
		if err := s.reservePins(bytes); err != nil {
			s.mu.Unlock()
			return err
		}
		defer s.releasePins(bytes)
	}
	s.mu.Unlock()
	number := s.begin()
	defer s.end(number)

	to, first := s.write(ctx, segment.Target{Class: class, Affinity: affinity(class, lane)}, recs)

	s.mu.Lock()
	var locs []segment.Location
	for k, l := range to {
		if l.IsZero() {
			continue
		}
		s.st.PutParts++
		s.st.PutBytes += l.Footprint()
		s.st.UserBytes += int64(l.Length)
		s.earn(l.Footprint())
		out, gone, err := s.place(sc, recs[k].Part, l, lane, clears)
		locs = append(locs, gone...)
		if err == nil {
			outs[from[k]] = out
		} else if first == nil {
			first = err
		}
	}
	s.mu.Unlock()
	s.punch(locs)
	return first
}

// footprint is what so many bytes take on the disk.
func footprint(bytes int) int64 { return segment.Location{Length: uint32(bytes)}.Footprint() }

// begin numbers a call that writes parts and enters them afterwards; until end,
// no segment counts as settled that it may have written to, and copies may lie on
// the disk that nobody names yet or any more.
func (s *Store) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := s.nextPut
	s.nextPut++
	s.putting[number] = make(chan struct{})
	return number
}

func (s *Store) end(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.putting[number])
	delete(s.putting, number)
}

// ended returns when all numbers that are given out have ended.
func (s *Store) ended(ctx context.Context) error {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.putting))
	s.mu.Unlock()
	for _, c := range all {
		select {
		case <-c:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "nvme", "stopped")
		}
	}
	return nil
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

// write appends records, and makes room for them. Those that were not written
// have no location; the error says why.
func (s *Store) write(ctx context.Context, t segment.Target, recs []segment.Record) ([]segment.Location, error) {
	s.ahead(ctx)
	to, err := s.segments.Append(ctx, t, recs)
	if to == nil {
		to = make([]segment.Location, len(recs))
	}
	for tries := 0; err != nil; tries++ {
		if !errors.Is(err, fault.Full) || tries == makeRoomTries {
			return to, s.device(err)
		}
		if err := s.makeRoom(ctx, tries >= makeRoomTries/2); err != nil {
			return to, err
		}
		var left []segment.Record
		var from []int
		for i := range to {
			if to[i].IsZero() {
				left, from = append(left, recs[i]), append(from, i)
			}
		}
		var more []segment.Location
		more, err = s.segments.Append(ctx, t, left)
		for k := range more {
			to[from[k]] = more[k]
		}
	}
	return to, s.device(nil)
}

// earn lets copying forward use a share of what was put, up to that of two
// segments. The caller holds mu.
func (s *Store) earn(bytes int64) {
	s.earned = min(s.earned+bytes*int64(s.opt.ForwardPercent)/100, 2*s.segmentBytes*int64(s.opt.ForwardPercent)/100)
}
