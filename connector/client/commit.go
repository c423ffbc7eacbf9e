package client

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Chunk says which chunk parts belong to.
type Chunk struct {
	Key, Parent [32]byte
	// Ordinal is the index of the chunk in its prompt, from 0.
	Ordinal uint32
	// Tokens in the chunk: the namespace's chunk_tokens.
	Tokens uint32
	// Quality: 0 = exact, else 1 + the worst level in the history of the bytes.
	Quality uint32
}

// WrittenPart is a part whose bytes were written through a Credit.
type WrittenPart struct {
	// Part is an index into Hello().Parts.
	Part   uint32
	Credit *Credit
}

// ChunkCommit hands written parts of one chunk over.
type ChunkCommit struct {
	Chunk
	Parts []WrittenPart
}

// PartResult is what became of one part.
type PartResult struct {
	Outcome larderv1.CommitOutcome
	// Err says why a part was rejected; nil otherwise.
	Err error
}

// TakeCredits takes up to n credits of the length from those granted ahead
// (Options.Credits), without waiting.
func (c *Client) TakeCredits(length uint64, n int) []*Credit {
	s := c.current.Load()
	if s == nil || s.mem == nil {
		return nil
	}
	return c.pool.take(s, length, n, nil)
}

// Grant asks the daemon for up to n slots for parts of the length. Fewer are
// possible; none is fault.Full.
func (c *Client) Grant(ctx context.Context, length uint64, n int) ([]*Credit, error) {
	s, err := c.shared()
	if err != nil {
		return nil, err
	}
	return c.grant(ctx, s, length, n)
}

func (c *Client) grant(ctx context.Context, s *session, length uint64, n int) ([]*Credit, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	probe, err := c.breaker.allow()
	if err != nil {
		return nil, err
	}
	credits, err := s.grant(ctx, length, n)
	(&pending{s: s, probe: probe}).done(err)
	return credits, err
}

func (c *Client) shared() (*session, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	if s.mem == nil {
		return nil, fault.New(fault.Invalid, "credits", "the session has no shared memory; use Store")
	}
	return s, nil
}

// ReturnCredits gives unused credits back in the background.
func (c *Client) ReturnCredits(credits ...*Credit) {
	for _, cr := range credits {
		cr.s.giveBack([]*Credit{cr})
	}
}

// Commit hands written slots over and waits for the outcome of each part, in
// order. After it the credits are spent, whatever came out. A credit that was
// revoked or spent before is rejected without asking the daemon.
func (c *Client) Commit(ctx context.Context, chunks []ChunkCommit) ([]PartResult, error) {
	p, err := c.StartCommit(ctx, chunks)
	if err != nil {
		return nil, err
	}
	return p.Wait(ctx)
}

// PendingCommit is a commit on its way.
type PendingCommit struct {
	c       *Client
	sent    *pending // nil: nothing was left to send
	results []PartResult
	// at[i] is the index in results of the i-th part sent.
	at    []int
	bytes []uint64
}

// StartCommit sends a commit and returns at once, so that the next parts can
// be copied while the daemon checksums these.
func (c *Client) StartCommit(ctx context.Context, chunks []ChunkCommit) (*PendingCommit, error) {
	p := &PendingCommit{c: c}
	m := &larderv1.Commit{}
	var s *session
	for i := range chunks {
		ch := &chunks[i]
		pc := &larderv1.CommitChunk{
			Key: ch.Key[:], Parent: ch.Parent[:], Ordinal: ch.Ordinal, Tokens: ch.Tokens, Quality: ch.Quality,
			Parts: make([]*larderv1.CommitPart, 0, len(ch.Parts)),
		}
		for _, w := range ch.Parts {
			err := w.Credit.spend()
			if err == nil && s != nil && w.Credit.s != s {
				err = fault.New(fault.Miss, "commit.slot", "the credit belongs to an earlier session")
			}
			if err != nil {
				p.results = append(p.results, PartResult{Outcome: larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, Err: err})
				continue
			}
			s = w.Credit.s
			p.at = append(p.at, len(p.results))
			p.bytes = append(p.bytes, w.Credit.length)
			p.results = append(p.results, PartResult{})
			pc.Parts = append(pc.Parts, &larderv1.CommitPart{Part: w.Part, Slot: w.Credit.slot, Length: w.Credit.length})
		}
		if len(pc.Parts) > 0 {
			m.Chunks = append(m.Chunks, pc)
		}
	}
	if s == nil {
		return p, nil
	}
	var err error
	p.sent, err = c.startOn(ctx, s, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Commit{Commit: m}}, nil)
	if err != nil {
		// It was not sent, and nobody else knows of the slots any more.
		for _, ch := range m.GetChunks() {
			for _, part := range ch.GetParts() {
				s.ctl.returnUnused(part.GetSlot())
			}
		}
	}
	return p, err
}

// Wait returns the outcome of each part, in the order of the commit.
func (p *PendingCommit) Wait(ctx context.Context) ([]PartResult, error) {
	if p.sent == nil {
		return p.results, nil
	}
	r, err := p.sent.wait(ctx)
	if err != nil {
		return nil, err
	}
	reply := r.GetCommit()
	if len(reply.GetOutcomes()) != len(p.at) {
		return nil, fault.New(fault.Unavailable, "commit.outcomes", "not one for each part").With(len(reply.GetOutcomes()), len(p.at))
	}
	for i, o := range reply.GetOutcomes() {
		p.results[p.at[i]].Outcome = o
		p.c.stats.committed(o, p.bytes[i])
	}
	for _, e := range reply.GetErrors() {
		if i := int(e.GetIndex()); i < len(p.at) {
			p.results[p.at[i]].Err = fromProto(e.GetError())
		}
	}
	return p.results, nil
}

func (c *counters) committed(o larderv1.CommitOutcome, bytes uint64) {
	switch o {
	case larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT:
		c.kept.Add(1)
	case larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED:
		c.published.Add(1)
	case larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE:
		c.duplicates.Add(1)
		return
	case larderv1.CommitOutcome_COMMIT_OUTCOME_CONFLICT:
		c.conflicts.Add(1)
		return
	default:
		c.rejected.Add(1)
		return
	}
	c.storedParts.Add(1)
	c.storedBytes.Add(int64(bytes))
}
