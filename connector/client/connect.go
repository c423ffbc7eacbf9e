package client

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// window is the flow-control window of streams and connections: fixed, since
// the estimator of gRPC adds pings, and large enough for a connection between
// hosts at memory speed.
const window = 8 << 20

// A daemon that is silent for pingAfter is asked whether it lives; without an
// answer within pingTimeout the connection ends. On one host the kernel tells;
// between hosts nothing else would.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 10 * time.Second
)

// Conn opens a gRPC connection to a daemon without a session: for Admin, and
// for files through Objects. It does not wait for the daemon.
func Conn(e Endpoint) (*grpc.ClientConn, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	network, address := "unix", e.Socket
	if e.Address != "" {
		creds = credentials.NewTLS(e.TLS)
		network, address = "tcp", e.Address
	}
	target := "passthrough:///localhost"
	if e.Address != "" {
		target = "passthrough:///" + e.Address
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "options.address", "cannot be dialled").With(e, nil)
	}
	return conn, nil
}

// connect keeps a session up until ctx ends.
func (c *Client) connect(ctx context.Context) {
	defer close(c.stopped)
	pause := c.opt.BackoffMin
	for ctx.Err() == nil {
		s, err := c.open(ctx)
		if err == nil {
			pause = c.opt.BackoffMin
			c.breaker.reset()
			c.publish(s, nil)
			c.opt.Log.Info("session opened", "daemon", s.hello.GetDaemon(), "session", s.hello.GetSessionId(), "shared_memory", s.mem != nil)
			err = s.run()
			c.stats.sessionsEnded.Add(1)
		}
		c.publish(nil, err)
		c.opt.Log.Info("no session", "endpoint", c.opt.String(), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, c.opt.BackoffMax)
	}
}

func (c *Client) publish(s *session, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.Store(s)
	c.lastErr = err
	close(c.changed)
	c.changed = make(chan struct{})
}

// open dials, says hello and maps the arena, all within DialTimeout.
func (c *Client) open(ctx context.Context) (_ *session, err error) {
	conn, err := Conn(c.opt.Endpoint)
	if err != nil {
		return nil, err
	}
	// The stream outlives the dial timeout, so the timeout cancels it by hand.
	streamCtx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.opt.DialTimeout, func() {
		cancel(fault.New(fault.Unavailable, "", "no welcome from the daemon in time").With(c.opt.Endpoint, c.opt.DialTimeout))
	})
	stop := func() {
		cancel(nil)
		_ = conn.Close()
	}
	defer func() {
		timer.Stop()
		if err != nil {
			if cause := context.Cause(streamCtx); cause != nil {
				err = cause
			}
			stop()
			err = FromStatus(err)
		}
	}()
	stream, err := larderv1.NewEngineClient(conn).Session(streamCtx)
	if err != nil {
		return nil, err
	}
	tokens := c.ended.all()
	err = stream.Send(&larderv1.SessionRequest{Id: 1, Body: &larderv1.SessionRequest_Hello{Hello: c.opt.hello(tokens)}})
	if err != nil {
		_, err = stream.Recv() // the stream's own error
		return nil, err
	}
	reply, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	hello, err := c.welcome(reply)
	if err != nil {
		return nil, err
	}
	c.ended.forget(tokens)
	c.mu.Lock()
	c.generation++
	s := newSession(c, c.generation, hello, conn, stream, stop)
	c.mu.Unlock()
	if s.mem, err = c.mapArena(streamCtx, hello); err != nil {
		return nil, err
	}
	if !timer.Stop() {
		if s.mem != nil {
			s.mem.retire()
		}
		return nil, context.Cause(streamCtx)
	}
	return s, nil
}

func (c *Client) welcome(reply *larderv1.SessionResponse) (*larderv1.HelloReply, error) {
	if e := reply.GetError(); e != nil {
		return nil, fromProto(e)
	}
	h := reply.GetHello()
	switch {
	case h == nil:
		return nil, fault.New(fault.Unavailable, "", "the daemon answered the hello with something else")
	case h.GetMajor() != Major:
		return nil, fault.New(fault.Invalid, "hello.major", "the daemon speaks another version of the API").With(h.GetMajor(), Major)
	case len(h.GetSessionToken()) != 32:
		return nil, fault.New(fault.Unavailable, "hello.session_token", "wrong length").With(len(h.GetSessionToken()), 32)
	}
	return h, nil
}

// mapArena maps the arena where there is one to share.
func (c *Client) mapArena(ctx context.Context, hello *larderv1.HelloReply) (*mapping, error) {
	arena := hello.GetArena()
	if arena == nil || c.opt.Streams || len(c.opt.Namespace) == 0 || c.opt.Role == larderv1.Role_ROLE_SCHEDULER {
		return nil, nil
	}
	fds, err := handover(ctx, arena.GetHandoverSocket(), hello.GetSessionToken())
	if err != nil {
		return nil, err
	}
	token := hello.GetSessionToken()
	return newMapping(fds, arena, c.opt.Prefault, func() { c.ended.add(token) })
}
