package tiered

import (
	"context"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
)

// Policy says which chunks are written to the back tier, and when.
type Policy uint8

const (
	// OnReuse writes a chunk at its first reuse; one that is never reused, when
	// it nears the tail of the order of eviction.
	OnReuse Policy = iota
	// Always writes every chunk when it is published. Wears the drive most, and
	// keeps most over a crash.
	Always
	// OnEvict writes only what nears the tail.
	OnEvict
	// Never writes nothing; what is there can be read.
	Never
)

var policyNames = [...]string{"on-reuse", "always", "on-evict", "never"}

// Policies are their names, the default first.
func Policies() []string { return policyNames[:] }

// ParsePolicy finds a policy by its name.
func ParsePolicy(name string) (Policy, error) {
	for i, n := range policyNames {
		if n == name {
			return Policy(i), nil
		}
	}
	return 0, fault.New(fault.Invalid, "policy", "no such policy").With(name, policyNames)
}

// String returns the policy's name.
func (p Policy) String() string { return policyNames[p] }

// Occasion is why a chunk is offered to the Writer.
type Occasion uint8

const (
	// Published: the front tier has it now.
	Published Occasion = iota
	// Reused: a prompt matched it.
	Reused
	// Cold: it nears the tail.
	Cold
)

// Wants says whether the policy writes a chunk on the occasion.
func (p Policy) Wants(o Occasion) bool {
	switch p {
	case OnReuse:
		return o == Reused || o == Cold
	case Always:
		return true
	case OnEvict:
		return o == Cold
	}
	return false
}

// WriterOptions of a writer. The zero value of a field means its default.
type WriterOptions struct {
	Gate   *Gate
	Policy Policy
	// Queue bounds the chunks that wait. Default 4096, about 0.2 KiB each.
	Queue int
	// Workers write at a time. Default 2.
	Workers int
}

// Writer copies chunks to the back tier in the background.
type Writer struct {
	opt    WriterOptions
	queue  chan Chunk
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	queued map[chunkName]struct{}
	closed bool
	st     WriterStats
}

type chunkName struct {
	scope storage.Scope
	key   keys.Key
}

// WriterStats are counters since the start.
type WriterStats struct {
	// Chunks and Bytes written, and chunks that failed by an error.
	Chunks, Failed uint64
	Bytes          int64
	// Dropped offers found the queue full; Refused writes found no room or no
	// budget.
	Dropped, Refused uint64
	// Waiting chunks now.
	Waiting int
}

// NewWriter starts the workers.
func NewWriter(o WriterOptions) *Writer {
	if o.Gate == nil {
		o.Gate = &Gate{}
	}
	if o.Queue == 0 {
		o.Queue = 4096
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	w := &Writer{opt: o, queue: make(chan Chunk, o.Queue), queued: map[chunkName]struct{}{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for range o.Workers {
		w.work.Go(w.run)
	}
	return w
}

// Close ends the writer: what waits is not written; a chunk at work may end as
// half a chunk, which the back tier drops.
func (w *Writer) Close() {
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		return
	}
	w.cancel()
	close(w.queue)
	w.work.Wait()
}

// Offer a chunk. It never blocks, and says whether the chunk waits now.
func (w *Writer) Offer(o Occasion, c Chunk) bool {
	if !w.opt.Policy.Wants(o) || c.there() {
		return false
	}
	name := chunkName{c.Scope, c.Key}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.queued[name]; ok || w.closed {
		return ok
	}
	select {
	case w.queue <- c:
		w.queued[name] = struct{}{}
		return true
	default:
		w.st.Dropped++
		return false
	}
}

func (w *Writer) run() {
	for c := range w.queue {
		if w.ctx.Err() == nil {
			_ = w.Write(w.ctx, c)
		}
		w.mu.Lock()
		delete(w.queued, chunkName{c.Scope, c.Key})
		w.mu.Unlock()
	}
}

// Write copies a chunk now and counts it, whatever the policy.
func (w *Writer) Write(ctx context.Context, c Chunk) error {
	if c.there() {
		return nil
	}
	n, err := c.copy(ctx, w.opt.Gate)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.st.Bytes += n
	switch k, _ := fault.KindOf(err); {
	case err == nil && n > 0:
		w.st.Chunks++
	case err == nil || k == fault.Miss: // it is there, or gone
	case k == fault.Full || k == fault.Busy:
		w.st.Refused++
	default:
		w.st.Failed++
	}
	return err
}

// Stats of now.
func (w *Writer) Stats() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.st
	st.Waiting = len(w.queued)
	return st
}
