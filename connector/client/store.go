package client

import (
	"context"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// PartData are the bytes of one part.
type PartData struct {
	// Part is an index into Hello().Parts.
	Part uint32
	// Bytes must have the part's raw_length.
	Bytes []byte
}

// ChunkData is a chunk, or some of its parts, to be stored.
type ChunkData struct {
	Chunk
	Parts []PartData
}

const (
	// A commit message costs both sides some wake-ups, tens of microseconds on
	// a virtual machine, so it should carry much; but what the last one
	// carries is checksummed after the last copy, so it should carry little.
	// So each one carries as much as is left after it, within these bounds:
	// checksums run faster than copies and catch up with a first one that is
	// late.
	minCommitBytes = 1 << 20
	maxCommitBytes = 16 << 20
	maxCommitParts = 256
	// commitWindow is how many commits are unanswered at most.
	commitWindow = 8
	// grantAtOnce bounds the slots that Store takes ahead of its copies.
	grantAtOnce = 64
)

// Store copies parts into Larder and waits until each is kept, published or
// refused. It returns one result for each part, in order; an error says why
// the rest was not tried or not answered: those parts are REJECTED with the
// same error. Nothing of the caller's is kept.
func (c *Client) Store(ctx context.Context, chunks []ChunkData) ([]PartResult, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	if s.mem == nil {
		return c.storeStream(ctx, s, chunks)
	}
	st := storer{c: c, s: s, chunks: chunks, need: make(map[uint64]int), free: make(map[uint64][]*Credit)}
	return st.run(ctx)
}

// storer is one Store through shared memory.
type storer struct {
	c      *Client
	s      *session
	chunks []ChunkData

	results []PartResult
	// need is how many parts of each length are still to be copied, free the
	// credits at hand for them.
	need map[uint64]int
	free map[uint64][]*Credit
	// left is what is still to be copied, bytes.
	left uint64
	// batch is the commit being filled; at are its parts' indexes in results.
	batch []ChunkCommit
	at    []int
	bytes uint64
	// sent are commits on their way, oldest first.
	sent []sentCommit
}

type sentCommit struct {
	p  *PendingCommit
	at []int
}

func (st *storer) run(ctx context.Context) ([]PartResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range st.chunks {
		for j := range st.chunks[i].Parts {
			n := uint64(len(st.chunks[i].Parts[j].Bytes))
			st.need[n]++
			st.left += n
			st.results = append(st.results, PartResult{Outcome: larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED})
		}
	}
	err := st.copyAll(ctx)
	if ferr := st.flush(ctx); err == nil {
		err = ferr
	}
	for len(st.sent) > 0 {
		if werr := st.collect(ctx); err == nil {
			err = werr
		}
	}
	for _, free := range st.free {
		st.c.pool.keep(st.s, free)
	}
	if err != nil {
		for i := range st.results {
			if r := &st.results[i]; r.Outcome == larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED && r.Err == nil {
				r.Err = err
			}
		}
	}
	return st.results, err
}

func (st *storer) copyAll(ctx context.Context) error {
	index := 0
	for i := range st.chunks {
		ch := &st.chunks[i]
		fresh := true
		for j := range ch.Parts {
			data := ch.Parts[j].Bytes
			cr, err := st.credit(ctx, uint64(len(data)))
			if err != nil {
				return err
			}
			if err := cr.Write(func(dst []byte) { copy(dst, data) }); err != nil {
				return err
			}
			if fresh || len(st.batch) == 0 { // credit may have sent it
				st.batch = append(st.batch, ChunkCommit{Chunk: ch.Chunk})
				fresh = false
			}
			last := &st.batch[len(st.batch)-1]
			last.Parts = append(last.Parts, WrittenPart{Part: ch.Parts[j].Part, Credit: cr})
			st.at = append(st.at, index)
			index++
			st.bytes += uint64(len(data))
			st.left -= uint64(len(data))
			if st.bytes >= min(max(st.left, minCommitBytes), maxCommitBytes) || len(st.at) >= maxCommitParts {
				if err := st.flush(ctx); err != nil {
					return err
				}
				fresh = true
			}
		}
	}
	return nil
}

// credit returns a slot for a part of the length: one granted ahead, else one
// that it asks for, together with those that the following parts will need.
func (st *storer) credit(ctx context.Context, length uint64) (*Credit, error) {
	free := st.free[length]
	if len(free) == 0 {
		n := min(st.need[length], grantAtOnce)
		free = st.c.pool.take(st.s, length, n, free[:0])
		var err error
		for len(free) == 0 {
			if free, err = st.c.grant(ctx, st.s, length, n); err == nil {
				break
			}
			if free = st.c.pool.takeLate(st.s, length, n, nil); len(free) > 0 {
				break
			}
			if err = st.makeRoom(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	st.need[length]--
	st.free[length] = free[1:]
	return free[0], nil
}

// makeRoom waits for an own commit where there is no slot to grant: what is on
// its way counts as granted and cannot be evicted, but will be once it is
// published. Without any it gives back what was taken of other lengths. It
// returns err if none of it is the reason.
func (st *storer) makeRoom(ctx context.Context, err error) error {
	if kind, _ := fault.KindOf(err); kind != fault.Full {
		return err
	}
	if len(st.sent)+len(st.batch) == 0 {
		for length, free := range st.free {
			if len(free) > 0 {
				err = nil
				st.s.giveBack(free)
				delete(st.free, length)
			}
		}
		st.s.ctl.flush(ctx, st.s.ended)
		return err
	}
	if err := st.flush(ctx); err != nil || len(st.sent) == 0 {
		return err
	}
	return st.collect(ctx)
}

// flush sends the batch.
func (st *storer) flush(ctx context.Context) error {
	if len(st.batch) == 0 {
		return nil
	}
	batch, at := st.batch, st.at
	st.batch, st.at, st.bytes = nil, nil, 0
	p, err := st.c.StartCommit(ctx, batch)
	if err != nil {
		return err
	}
	st.sent = append(st.sent, sentCommit{p: p, at: at})
	if len(st.sent) > commitWindow {
		return st.collect(ctx)
	}
	return nil
}

// collect waits for the oldest commit.
func (st *storer) collect(ctx context.Context) error {
	f := st.sent[0]
	st.sent = st.sent[1:]
	results, err := f.p.Wait(ctx)
	for i, r := range results {
		st.results[f.at[i]] = r
	}
	return err
}

// storeStream is Store for a session without shared memory.
func (c *Client) storeStream(ctx context.Context, s *session, chunks []ChunkData) ([]PartResult, error) {
	var parts []PutPart
	specs := s.hello.GetParts()
	for i := range chunks {
		ch := &chunks[i]
		for _, p := range ch.Parts {
			if int(p.Part) >= len(specs) {
				return nil, fault.New(fault.Invalid, "commit.part", "no such part").With(p.Part, len(specs))
			}
			parts = append(parts, PutPart{Chunk: ch.Chunk, ID: partID(ch.Key[:], specs[p.Part]), Bytes: p.Bytes})
		}
	}
	var results []PartResult
	limit := int(s.hello.GetLimits().GetMaxParts())
	for rest := parts; len(rest) > 0; {
		step := rest[:stepLength(len(rest), limit, func(i int) int { return len(rest[i].Bytes) })]
		got, err := c.putStep(ctx, s, step)
		results = append(results, got...)
		if err != nil {
			for range rest[len(step):] {
				results = append(results, PartResult{Outcome: larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, Err: err})
			}
			return results, err
		}
		rest = rest[len(step):]
	}
	return results, nil
}

func (c *Client) putStep(ctx context.Context, s *session, parts []PutPart) ([]PartResult, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	results, err := s.objects().PutParts(ctx, parts)
	for i, r := range results {
		c.stats.committed(r.Outcome, uint64(len(parts[i].Bytes)))
	}
	return results, err
}

// stepBytes bounds what one stream moves, so that a deadline can be told for
// it.
const stepBytes = 64 << 20

// stepLength is how many of n parts one stream moves: at least one, at most
// limit, and no more than stepBytes.
func stepLength(n, limit int, length func(i int) int) int {
	bytes := length(0)
	for i := 1; i < n; i++ {
		if bytes += length(i); bytes > stepBytes || i >= limit {
			return i
		}
	}
	return n
}

func partID(key []byte, spec *larderv1.PartSpec) *larderv1.PartId {
	return &larderv1.PartId{ChunkKey: key, Group: spec.GetGroup(), Span: spec.GetSpan(), HeadGroup: spec.GetHeadGroup()}
}
