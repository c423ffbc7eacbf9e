package tiered

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/larderkv/larder/api/fault"
)

// PromoterOptions of a promoter. The zero value of a field means its default.
type PromoterOptions struct {
	Gate *Gate
	// InFlight chunks are copied at a time. Default 8. More asks more of the
	// device at once, and takes that much of the front tier.
	InFlight int
	// Watcher may be nil. Its methods must not block.
	Watcher Watcher
	// Took hears how long each chunk took that was brought, without its wait for
	// a turn. May be nil; it must not block.
	Took func(time.Duration)
}

// Watcher hears of the chunks that are on their way, each once, however many
// wait for it.
type Watcher interface {
	// Queued: a chunk of so many bytes waits for its turn.
	Queued(bytes int64)
	// Ended: it is over, and so many of the bytes came; none, where it failed or
	// was there already.
	Ended(bytes, brought int64)
}

type unwatched struct{}

func (unwatched) Queued(int64)       {}
func (unwatched) Ended(int64, int64) {}

// promoteTimeout of one chunk, its wait for a turn included.
const promoteTimeout = 10 * time.Second

// Promoter copies chunks into the front tier.
type Promoter struct {
	opt    PromoterOptions
	flight singleflight.Group
	turns  chan struct{}
	// work are copies that may outlive those who asked.
	work   sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	waiting        atomic.Int64
	chunks, failed atomic.Uint64
	bytes          atomic.Int64
}

// NewPromoter makes one.
func NewPromoter(o PromoterOptions) *Promoter {
	if o.Gate == nil {
		o.Gate = &Gate{}
	}
	if o.InFlight == 0 {
		o.InFlight = 8
	}
	if o.Watcher == nil {
		o.Watcher = unwatched{}
	}
	if o.Took == nil {
		o.Took = func(time.Duration) {}
	}
	p := &Promoter{opt: o, turns: make(chan struct{}, o.InFlight)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends the copies at work and waits for them.
func (p *Promoter) Close() {
	p.cancel()
	p.work.Wait()
}

// Start begins to copy a chunk, unless somebody already does, and returns the
// outcome when it is there. Turns are given in the order of the calls, as far as
// goroutines keep it. Nobody has to wait for the outcome.
func (p *Promoter) Start(c Chunk) <-chan singleflight.Result {
	p.work.Add(1)
	p.waiting.Add(1)
	name := string(c.Scope.Namespace[:]) + string(c.Scope.Tenant[:]) + string(c.Key[:])
	in := p.flight.DoChan(name, func() (any, error) { return nil, p.copy(&c) })
	out := make(chan singleflight.Result, 1)
	go func() {
		defer p.work.Done()
		r := <-in
		p.waiting.Add(-1)
		out <- r
	}()
	return out
}

// Waiting is how many outcomes of Start have not come yet. Start itself refuses
// nobody: who asks for chunks that nobody waits for looks here first.
func (p *Promoter) Waiting() int { return int(p.waiting.Load()) }

func (p *Promoter) copy(c *Chunk) error {
	var brought int64
	p.opt.Watcher.Queued(c.Layout.Bytes())
	defer func() { p.opt.Watcher.Ended(c.Layout.Bytes(), brought) }()
	ctx, cancel := context.WithTimeout(p.ctx, promoteTimeout)
	defer cancel()
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		p.failed.Add(1)
		return fault.Wrap(fault.Unavailable, ctx.Err(), "promote", "no turn came in time").With(nil, promoteTimeout)
	}
	began := time.Now()
	n, err := c.copy(ctx, p.opt.Gate)
	if err != nil {
		p.failed.Add(1)
		return err
	}
	brought = n
	p.chunks.Add(1)
	p.bytes.Add(n)
	p.opt.Took(time.Since(began))
	return nil
}

// PromoterStats are counters since the start.
type PromoterStats struct {
	Chunks, Failed uint64
	Bytes          int64
}

// Stats of now.
func (p *Promoter) Stats() PromoterStats {
	return PromoterStats{p.chunks.Load(), p.failed.Load(), p.bytes.Load()}
}
