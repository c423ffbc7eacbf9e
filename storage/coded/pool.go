package coded

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// Options of a pool. The zero value of a field means its default.
type Options struct {
	// Workers are the processors that code at a time. Default: half of those that
	// the process has. More takes them from engines on the host; fewer makes
	// loads of coded chunks slower.
	Workers int
	// Bytes of memory that parts take while they are coded: bfloat16 about three
	// times its length. Default 32 MiB for each worker and 256 MiB at least; at
	// least 16 MiB. A part that takes more than all is coded while no other is.
	// About as much again stays with the workers. Less: parts wait, and workers
	// begin with fresh memory where parts are large.
	Bytes int64
}

const (
	minBytes     = 16 << 20
	defaultBytes = 256 << 20
	workerBytes  = 32 << 20
)

// unitBytes are what coding takes for each element of a unit at work, of which
// each worker has two.
const unitBytes = 12

// encodeWeight is the memory that coding a part takes: its object, 3 bytes for
// each element, and the units at work.
func encodeWeight(s *codec.Shape) int64 {
	elements, unit := int64(0), int64(0)
	for _, f := range s.Fields {
		n := int64(s.Tokens) * int64(f.Dims)
		elements += n * int64(s.Layers) * int64(s.Heads)
		unit = max(unit, n)
	}
	return int64(s.RawSize()) + 3*elements + 2*unitBytes*unit
}

// decodeWeight is that of decoding one: its object, and the units at work.
func (p *Pool) decodeWeight(s *codec.Shape) int64 {
	unit := int64(0)
	for _, f := range s.Fields {
		unit = max(unit, int64(s.Tokens)*int64(f.Dims))
	}
	return int64(s.RawSize()) + unitBytes*unit*int64(min(s.Units(), 2*p.opt.Workers))
}

// Pool is described in the package's documentation.
type Pool struct {
	opt   Options
	coder *rans.Coder
	// turns of all workers; writes are those that encode.
	turns, writes *semaphore.Weighted
	memory        *semaphore.Weighted
	// keep is the largest part whose working memory is kept.
	keep int

	mu sync.Mutex
	// Working memory that nobody uses now. buffers are for objects.
	encoders []*codec.Encoder
	readers  []*codec.Reader
	buffers  [][]byte
	st       Stats
}

// NewPool makes one. It has nothing to close.
func NewPool(o Options) (*Pool, error) {
	if o.Workers == 0 {
		o.Workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if o.Bytes == 0 {
		o.Bytes = max(defaultBytes, int64(o.Workers)*workerBytes)
	}
	switch {
	case o.Workers < 1 || o.Workers > 1024:
		return nil, fault.New(fault.Invalid, "coded.workers", "out of range").With(o.Workers, "1..1024")
	case o.Bytes < minBytes:
		return nil, fault.New(fault.Invalid, "coded.bytes", "too little").With(o.Bytes, int64(minBytes))
	}
	coder, err := rans.New(rans.Options{})
	if err != nil {
		return nil, err
	}
	p := &Pool{
		opt: o, coder: coder,
		turns: semaphore.NewWeighted(int64(o.Workers)), memory: semaphore.NewWeighted(o.Bytes), keep: int(o.Bytes / 4 / int64(o.Workers)),
	}
	p.writes = semaphore.NewWeighted(int64(p.encodings()))
	return p, nil
}

// encodings are under way at most: half of the workers, so that loads do not wait
// behind them.
func (p *Pool) encodings() int { return max(1, p.opt.Workers/2) }

// reserve memory. It is the caller's until it calls release.
func (p *Pool) reserve(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, p.opt.Bytes)
	if err := p.wait(ctx, p.memory, n); err != nil {
		return nil, err
	}
	return func() { p.memory.Release(n) }, nil
}

// wait for a semaphore, counted as waiting.
func (p *Pool) wait(ctx context.Context, s *semaphore.Weighted, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	p.count(func(st *Stats) { st.Waiting++ })
	defer p.count(func(st *Stats) { st.Waiting-- })
	if err := s.Acquire(ctx, n); err != nil {
		p.count(func(st *Stats) { st.Stopped++ })
		return stopped(err)
	}
	return nil
}

func stopped(cause error) error { return fault.Wrap(fault.Unavailable, cause, "coded", "stopped") }

// encode raw bytes. The object goes back by giveBuffer.
func (p *Pool) encode(ctx context.Context, raw []byte, shape *codec.Shape, mode Mode) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, stopped(err)
	}
	if err := p.wait(ctx, p.writes, 1); err != nil {
		return nil, err
	}
	defer p.writes.Release(1)
	if err := p.wait(ctx, p.turns, 1); err != nil {
		return nil, err
	}
	defer p.turns.Release(1)
	e := take(p, &p.encoders, func() *codec.Encoder { return codec.NewEncoder(p.coder) })
	params := mode.params(shape)
	began := time.Now()
	object, err := e.Encode(p.buffer(0), raw, shape, &params)
	took := time.Since(began)
	if len(raw) <= p.keep {
		give(p, &p.encoders, e)
	}
	p.count(func(st *Stats) {
		st.EncodeTime += took
		if err != nil {
			st.EncodeFailed++
		}
	})
	return object, err
}

// buffer of so many bytes, with any content.
func (p *Pool) buffer(n int) []byte {
	b := take(p, &p.buffers, func() []byte { return nil })
	if cap(b) < n {
		b = make([]byte, n)
	}
	return b[:n]
}

// giveBuffer takes a buffer back, and keeps it as far as there may be workers
// that need one.
func (p *Pool) giveBuffer(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cap(b) > 0 && cap(b) <= p.keep && len(p.buffers) < 2*p.opt.Workers {
		p.buffers = append(p.buffers, b)
	}
}

// take one of those that nobody uses, or a new one.
func take[T any](p *Pool, list *[]T, fresh func() T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(*list)
	if n == 0 {
		return fresh()
	}
	v := (*list)[n-1]
	*list = (*list)[:n-1]
	return v
}

func give[T any](p *Pool, list *[]T, v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*list = append(*list, v)
}
