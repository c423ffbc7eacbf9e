package coded

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
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
	// least 16 MiB. Chunks that are written take at most half of it, and keep that
	// until the tier below has them. What takes more than half, a part to decode
	// or a chunk to write, is coded while no other is of its kind. About as much
	// again stays with the workers. Less: parts wait, and workers begin with fresh
	// memory where parts are large.
	Bytes int64
	// Bases of calibrated modes and objects. Default: none.
	Bases Bases
}

const (
	minBytes     = 16 << 20
	defaultBytes = 256 << 20
	workerBytes  = 32 << 20
)

// unitBytes are what coding takes for each element of a unit at work, of which
// each worker has two.
const unitBytes = 12

// encodeWeight is the memory that coding a part takes besides its object: 3 bytes
// for each element, and the units at work. by a basis joins heads into one unit,
// from a copy of the part.
func encodeWeight(s *codec.Shape, by *basis.Basis) int64 {
	elements, unit := int64(0), int64(0)
	for _, f := range s.Fields {
		n := int64(s.Tokens) * int64(f.Dims)
		elements += n * int64(s.Layers) * int64(s.Heads)
		unit = max(unit, n)
	}
	if by == nil || by.Joined == 1 {
		return 3*elements + 2*unitBytes*unit
	}
	return 3*elements + 2*unitBytes*unit*int64(by.Joined) + int64(s.RawSize())
}

// decodeWeight is that of decoding one: its object, and the units at work. Where
// there is a basis, all heads may be one unit, and workers keep a layer each.
func (p *Pool) decodeWeight(s *codec.Shape, calibrated bool) int64 {
	unit := int64(0)
	for _, f := range s.Fields {
		unit = max(unit, int64(s.Tokens)*int64(f.Dims))
	}
	if !calibrated {
		return int64(s.RawSize()) + unitBytes*unit*int64(min(s.Units(), 2*p.opt.Workers))
	}
	joined := int64(s.Heads)
	return int64(s.RawSize()) + unitBytes*unit*joined*int64(min(s.Units(), 2*p.opt.Workers)) + int64(s.LayerSize())*int64(min(s.Layers, p.opt.Workers))
}

// Pool is described in the package's documentation.
type Pool struct {
	opt   Options
	coder *rans.Coder
	// turns of all workers; writes are those that encode.
	turns, writes *semaphore.Weighted
	// memory in two halves. Writes take of theirs only; reads of both, but never
	// wait for that of writes, which may be held by one that a disk keeps waiting.
	readMemory, writeMemory *semaphore.Weighted
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
	if o.Bases == nil {
		o.Bases = NoBases{}
	}
	coder, err := rans.New(rans.Options{})
	if err != nil {
		return nil, err
	}
	p := &Pool{
		opt: o, coder: coder,
		turns:      semaphore.NewWeighted(int64(o.Workers)),
		readMemory: semaphore.NewWeighted(o.Bytes / 2), writeMemory: semaphore.NewWeighted(o.Bytes / 2),
		keep: int(o.Bytes / 4 / int64(o.Workers)),
	}
	p.writes = semaphore.NewWeighted(int64(p.encodings()))
	return p, nil
}

// encodings are under way at most: half of the workers, so that loads do not wait
// behind them. A single worker serves both: a load waits for one part at most that
// is being encoded.
func (p *Pool) encodings() int { return max(1, p.opt.Workers/2) }

// reserveRead takes memory for a part that is decoded. It is the caller's until
// it calls release.
func (p *Pool) reserveRead(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, p.opt.Bytes/2)
	from := p.readMemory
	if !from.TryAcquire(n) {
		if p.writeMemory.TryAcquire(n) { // fails while a write waits for it
			from = p.writeMemory
		} else if err := p.wait(ctx, from, n); err != nil {
			return nil, err
		}
	}
	return func() { from.Release(n) }, nil
}

// reserveWrite takes memory for a chunk that is written, likewise.
func (p *Pool) reserveWrite(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, p.opt.Bytes/2)
	if err := p.wait(ctx, p.writeMemory, n); err != nil {
		return nil, err
	}
	return func() { p.writeMemory.Release(n) }, nil
}

// wait for a semaphore, counted as waiting.
func (p *Pool) wait(ctx context.Context, s *semaphore.Weighted, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	p.count(func(st *Stats) { st.Waiting++ })
	defer p.count(func(st *Stats) { st.Waiting-- })
	if err := s.Acquire(ctx, n); err != nil {
		return stopped(err)
	}
	return nil
}

func stopped(cause error) error { return fault.Wrap(fault.Unavailable, cause, "coded", "stopped") }

// encode raw bytes without a basis. The object goes back by giveBuffer.
func (p *Pool) encode(ctx context.Context, raw []byte, shape *codec.Shape, mode Mode) ([]byte, error) {
	params := mode.params(shape)
	return p.encodeBy(ctx, raw, shape, &params)
}

// encodeBy encodes raw bytes. The object goes back by giveBuffer.
func (p *Pool) encodeBy(ctx context.Context, raw []byte, shape *codec.Shape, params *codec.Params) ([]byte, error) {
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
	began := time.Now()
	object, err := e.Encode(p.buffer(0), raw, shape, params)
	took := time.Since(began)
	if len(raw) <= p.keep {
		give(p, &p.encoders, e)
	}
	p.count(func(st *Stats) {
		st.EncodeTime += took
		if c := params.Calibration; c != nil && err == nil {
			st.of(c.Basis.ID(), func(u *BasisUse) { u.encoded(len(raw), len(object), took) })
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
