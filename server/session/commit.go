package session

import (
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/wirefault"
	"github.com/larderkv/larder/storage/arena"
)

// inlineBytes is how much the reader checksums itself: less than starting a
// goroutine and waking it costs (about 5 us).
const inlineBytes = 128 << 10

// commit takes slots over. Whatever it answers, they are no longer the
// client's.
func (s *session) commit(id uint64, c *larderv1.Commit) error {
	if err := s.needs(true, true); err != nil {
		return err
	}
	parts, bytes := 0, uint64(0)
	for _, ch := range c.GetChunks() {
		parts += len(ch.GetParts())
		for _, p := range ch.GetParts() {
			bytes += min(p.GetLength(), 1<<40)
		}
	}
	if most := s.service.options.Limits.MaxParts; parts < 1 || parts > most {
		s.giveUp(c)
		return fault.New(fault.Invalid, "commit.parts", "out of range").With(parts, most)
	}
	work := func() { s.runCommit(id, c, parts) }
	if bytes <= inlineBytes {
		work()
		return nil
	}
	if err := s.start(work); err != nil {
		s.giveUp(c)
		return err
	}
	return nil
}

// start runs work in a goroutine of its own, within the in-flight limit.
func (s *session) start(work func()) error {
	most := s.service.options.Limits.MaxInFlight
	if int(s.inFlight.Add(1)) > most {
		s.inFlight.Add(-1)
		return fault.New(fault.Busy, "", "too many requests in flight").With(nil, most)
	}
	s.work.Go(func() {
		defer s.inFlight.Add(-1)
		work()
	})
	return nil
}

// giveUp frees the slots of a commit that is refused as a whole.
func (s *session) giveUp(c *larderv1.Commit) {
	var slots []arena.Slot
	for _, ch := range c.GetChunks() {
		for _, p := range ch.GetParts() {
			slots = append(slots, slotOf(p.GetSlot()))
		}
	}
	// Slots that are not the session's are ignored: the commit's own error is
	// what counts.
	_ = s.service.options.Arena.Return(s.owner(), slots)
	s.spent(slots...)
}

func (s *session) runCommit(id uint64, c *larderv1.Commit, parts int) {
	began := time.Now()
	reply := &larderv1.CommitReply{Outcomes: make([]larderv1.CommitOutcome, 0, parts)}
	var (
		list    []arena.PartCommit
		results []arena.Result
		kept    int
		bytes   int64
	)
	for _, ch := range c.GetChunks() {
		list = list[:0]
		for _, p := range ch.GetParts() {
			// An index that does not fit stays one that does not exist.
			list = append(list, arena.PartCommit{
				Part: int(min(p.GetPart(), 1<<31-1)), Slot: slotOf(p.GetSlot()), Length: p.GetLength(),
			})
		}
		results = s.commitChunk(ch, list, results[:0])
		for i, r := range results {
			s.spent(list[i].Slot)
			if r.Err != nil {
				p := wirefault.Proto(r.Err)
				s.service.options.Meter.Said(fault.Kind(p.Kind))
				reply.Errors = append(reply.Errors, &larderv1.CommitError{Index: uint32(len(reply.Outcomes)), Error: p})
			} else {
				kept++
				bytes += int64(list[i].Length)
			}
			reply.Outcomes = append(reply.Outcomes, larderv1.CommitOutcome(r.Outcome))
		}
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Commit{Commit: reply}})
	s.service.options.Meter.Committed(time.Since(began), kept, bytes)
}

// commitChunk gives one result for each part. The gate is passed chunk by
// chunk, so that commits and loads of all sessions take turns.
func (s *session) commitChunk(ch *larderv1.CommitChunk, list []arena.PartCommit, out []arena.Result) []arena.Result {
	c, err := s.chunkOf(ch)
	if err == nil {
		err = s.enter()
	}
	if err != nil {
		slots := make([]arena.Slot, len(list))
		for i := range list {
			slots[i] = list[i].Slot
			out = append(out, arena.Result{Outcome: arena.Outcome(larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED), Err: err})
		}
		_ = s.service.options.Arena.Return(s.owner(), slots)
		return out
	}
	defer s.leave()
	return s.service.options.Arena.Commit(s.ctx, s.owner(), c, list, out)
}

// enter waits for a place at the gate, as long as the session lives.
func (s *session) enter() error {
	select {
	case s.service.gate <- struct{}{}:
		return nil
	case <-s.ctx.Done():
		return fault.New(fault.Unavailable, "", "the session has ended")
	}
}

func (s *session) leave() { <-s.service.gate }

func (s *session) chunkOf(ch *larderv1.CommitChunk) (arena.Chunk, error) {
	switch tokens := s.namespace.Descriptor.ChunkTokens; {
	case len(ch.GetKey()) != keys.Size:
		return arena.Chunk{}, fault.New(fault.Invalid, "commit.key", "wrong length").With(len(ch.GetKey()), keys.Size)
	case len(ch.GetParent()) != keys.Size:
		return arena.Chunk{}, fault.New(fault.Invalid, "commit.parent", "wrong length").With(len(ch.GetParent()), keys.Size)
	case ch.GetTokens() != tokens:
		return arena.Chunk{}, fault.New(fault.Invalid, "commit.tokens", "only full chunks are stored").With(ch.GetTokens(), tokens)
	case ch.GetQuality() > 255:
		return arena.Chunk{}, fault.New(fault.Invalid, "commit.quality", "out of range").With(ch.GetQuality(), "0..255")
	}
	return arena.Chunk{
		Key: keys.Key(ch.GetKey()), Parent: keys.Key(ch.GetParent()), Ordinal: ch.GetOrdinal(),
		Tokens: uint16(ch.GetTokens()), Quality: uint8(ch.GetQuality()),
	}, nil
}
