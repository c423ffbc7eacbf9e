package daemon

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	// callGrace is how long calls that were begun may take once sessions have ended.
	callGrace = 2 * time.Second
	// farewell is how long peers without calls have to read their answers and
	// leave; the quick ones do within a millisecond.
	farewell = 100 * time.Millisecond
)

// endStreams lets calls end for a moment, then ends them. It waits neither for
// idle connections nor for those that have not said anything yet: gRPC would,
// for the latter as long as its handshakes may take.
func (d *Daemon) endStreams() {
	d.sessions.Close()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		d.grpc.GracefulStop()
	}()
	within(callGrace, d.calls.none(), stopped)
	within(farewell, stopped, stopped)
	d.peers.close()
	d.grpc.Stop()
	<-stopped
	d.objects.Wait()
}

// within waits for one of two events, for a time.
func within(limit time.Duration, one, other <-chan struct{}) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-one:
	case <-other:
	case <-t.C:
	}
}

// calls counts what is being answered.
type calls struct {
	mu      sync.Mutex
	running int
	waiting []chan struct{}
}

func (c *calls) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 {
		for _, w := range c.waiting {
			close(w)
		}
		c.waiting = nil
	}
}

// none is closed once nothing runs.
func (c *calls) none() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan struct{})
	if c.running == 0 {
		close(w)
	} else {
		c.waiting = append(c.waiting, w)
	}
	return w
}

func (c *calls) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c.begin()
	defer c.end()
	return next(ctx, req)
}

func (c *calls) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c.begin()
	defer c.end()
	return next(srv, s)
}

// peers are credentials that remember the connections they were asked about,
// from the first byte on.
type peers struct {
	credentials.TransportCredentials

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once closed
}

func newPeers(c credentials.TransportCredentials) *peers {
	return &peers{TransportCredentials: c, open: map[net.Conn]struct{}{}}
}

// ServerHandshake implements credentials.TransportCredentials.
func (p *peers) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !p.add(raw) {
		return nil, nil, net.ErrClosed
	}
	c, info, err := p.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		p.remove(raw)
		return nil, nil, err
	}
	return &peer{Conn: c, gone: func() { p.remove(raw) }}, info, nil
}

// Clone implements credentials.TransportCredentials: the server's own copy is
// this one, or nobody would know of its connections.
func (p *peers) Clone() credentials.TransportCredentials { return p }

func (p *peers) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *peers) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

// close ends all connections and takes no more.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

// peer is a connection that says when it is closed.
type peer struct {
	net.Conn
	gone func()
}

func (p *peer) Close() error {
	defer p.gone()
	return p.Conn.Close()
}
