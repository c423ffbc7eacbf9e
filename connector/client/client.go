package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Client keeps a session with a daemon. See the package's documentation.
type Client struct {
	opt     Options
	breaker breaker
	pool    *pool
	stats   counters
	ended   ended

	current atomic.Pointer[session]
	stop    context.CancelFunc
	stopped chan struct{}

	mu         sync.Mutex
	generation uint64
	lastErr    error
	// changed is closed and replaced whenever current or lastErr changes.
	changed chan struct{}
}

// New starts a client. It does not wait for the daemon and does not fail for
// want of one: only options that can never work are an error.
func New(opt Options) (*Client, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{
		opt:     opt,
		breaker: breaker{threshold: opt.BreakerFailures, pause: opt.BreakerOpen, now: time.Now},
		pool:    newPool(opt.Credits),
		ended:   ended{news: make(chan struct{}, 1)},
		stop:    stop,
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	go c.connect(ctx)
	return c, nil
}

// Close gives unused credits back, for CallTimeout at most, ends the session
// and waits for the client's goroutines. Sections that are still running keep
// their memory until they end. Then, as a rule when Close returns, the lifetime
// pipe is closed: it tells the daemon that nobody here touches what was left by
// calls that were cut short.
func (c *Client) Close() error {
	if s := c.current.Load(); s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.opt.CallTimeout)
		s.leave(ctx)
		cancel()
	}
	c.stop()
	<-c.stopped
	return nil
}

// Wait returns once a session is up that takes new work: where the daemon drains
// or has just gone, the one that follows. It returns early where the daemon refused
// this client for a reason that another attempt does not change.
func (c *Client) Wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed, last := c.changed, c.lastErr
		c.mu.Unlock()
		s := c.current.Load()
		switch {
		case s != nil && s.stands():
			return nil
		case last != nil && permanent(last):
			return last
		}
		select {
		case <-changed:
		case <-c.stopped:
			return fault.New(fault.Unavailable, "", "the client is closed")
		case <-ctx.Done():
			if last != nil {
				return last
			}
			return timeout(ctx)
		}
	}
}

// Ready reports whether calls can succeed now: there is a session that does
// not drain, and the breaker is closed.
func (c *Client) Ready() bool {
	s := c.current.Load()
	return s != nil && c.breaker.closed() && s.stands()
}

// Hello returns the daemon's answer to the hello of the current session, nil
// without one. It is shared: read only.
func (c *Client) Hello() *larderv1.HelloReply {
	if s := c.current.Load(); s != nil {
		return s.hello
	}
	return nil
}

// Generation counts the sessions that this client had.
func (c *Client) Generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// LastError says why there is no session; nil while there is one.
func (c *Client) LastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastErr
}

// SharedMemory reports whether the current session's bytes move through the
// arena.
func (c *Client) SharedMemory() bool {
	s := c.current.Load()
	return s != nil && s.mem != nil
}

func (c *Client) session() (*session, error) {
	if s := c.current.Load(); s != nil {
		return s, nil
	}
	if err := c.LastError(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "", "not connected")
	}
	return nil, fault.New(fault.Unavailable, "", "not connected yet")
}

// bound gives the context a deadline if it has none.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.opt.CallTimeout)
}

// call sends a request on the current session and waits for its reply.
func (c *Client) call(ctx context.Context, m *larderv1.SessionRequest) (*larderv1.SessionResponse, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	return c.callOn(ctx, s, m, nil)
}

func (c *Client) callOn(ctx context.Context, s *session, m *larderv1.SessionRequest, arrive func(*larderv1.SessionResponse, bool)) (*larderv1.SessionResponse, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	p, err := c.startOn(ctx, s, m, arrive)
	if err != nil {
		return nil, err
	}
	return p.wait(ctx)
}

// pending is a call that was sent and not waited for yet.
type pending struct {
	s     *session
	call  *call
	id    uint64
	probe bool
}

func (c *Client) startOn(ctx context.Context, s *session, m *larderv1.SessionRequest, arrive func(*larderv1.SessionResponse, bool)) (*pending, error) {
	probe, err := c.breaker.allow()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	p := &pending{s: s, probe: probe}
	if p.call, p.id, err = s.start(ctx, m, arrive); err != nil {
		p.done(err)
		return nil, err
	}
	return p, nil
}

func (p *pending) wait(ctx context.Context) (*larderv1.SessionResponse, error) {
	ctx, cancel := p.s.c.bound(ctx)
	defer cancel()
	r, err := p.s.wait(ctx, p.call, p.id)
	p.done(err)
	return r, err
}

func (p *pending) done(err error) {
	if err != nil {
		p.s.c.stats.failed(err)
	}
	if p.s.c.breaker.done(p.probe, outcomeOf(err)) {
		p.s.end(fault.Wrap(fault.Unavailable, err, "", "given up: the daemon does not answer"))
	}
}
