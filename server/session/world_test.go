package session_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/handover"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/listen"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock stands still until a test moves it. It starts at a time that is after
// any zero value.
type clock struct{ now atomic.Int64 }

func (c *clock) MonotonicNanos() int64 { return c.now.Load() }

type nothing struct{}

func (nothing) Matched(time.Duration, int, int)       {}
func (nothing) Loaded(time.Duration, int, int, int64) {}
func (nothing) Committed(time.Duration, int, int64)   {}
func (nothing) Skipped(int, int)                      {}
func (nothing) Said(fault.Kind)                       {}

// settings of a world.
type settings struct {
	arena  arena.Options
	limits session.Limits
	auth   auth.Options
	// wrap stands between the sessions and the arena.
	wrap func(session.Arena) session.Arena
	// checkers as in session.Options, the same on every machine.
	checkers int
	// lane moves the messages of clients that connect to a lane.
	lane    bool
	noLanes bool
	// identity changes who callers are.
	identity func(auth.Identity) auth.Identity
}

func defaults() settings {
	return settings{
		checkers: 3,
		arena:    arena.Options{Budget: 4 << 20, SegmentBytes: 4 << 20, Lease: 10 * time.Second, RevokeGrace: 2 * time.Second},
		limits: session.Limits{
			MaxSessions: 16, MaxInFlight: 8, MaxMessageBytes: 2 << 20, MaxMatchChunks: 64, MaxParts: 32,
			MaxCredits: 16, MaxHolds: 4, HoldDefault: 10 * time.Second, HoldMax: time.Minute,
			Lease: 10 * time.Second, RevokeGrace: 2 * time.Second,
		},
	}
}

// over is the defaults with one of the two transports.
func over(lane bool) settings {
	s := defaults()
	s.lane = lane
	return s
}

// world is sessions over real sockets on a real arena, with a clock that only
// the test moves; deadlines are kept by Tick.
type world struct {
	t        testing.TB
	clock    *clock
	arena    *arena.Arena
	sessions *session.Service
	registry *registry.Registry
	log      *directory.Log
	socket   string
	handover string
	lane     bool
	close    func()
}

func newWorld(t testing.TB, s settings) *world {
	dir := t.TempDir()
	w := &world{
		t: t, clock: &clock{}, log: directory.NewLog(directory.LogOptions{}),
		socket: filepath.Join(dir, "s"), handover: filepath.Join(dir, "h"), lane: s.lane,
	}
	w.clock.now.Store(int64(time.Hour))
	s.arena.Clock, s.arena.Observer = w.clock, w.log
	a, err := arena.Open(s.arena)
	require.NoError(t, err)
	w.arena = a
	w.registry = registry.New(registry.Options{Secret: registry.Secret{1}, Numbers: a, MaxNamespaces: 4, MaxTenants: 4, Epoch: 100})
	policy, err := auth.New(s.auth)
	require.NoError(t, err)
	if s.wrap == nil {
		s.wrap = func(a session.Arena) session.Arena { return a }
	}
	w.sessions = session.New(session.Options{
		Arena: s.wrap(a), Registry: w.registry, Policy: policy, Clock: w.clock, Meter: nothing{},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Limits: s.limits, Mode: s.arena.Mode,
		HandoverSocket: w.handover, Checkers: s.checkers, NoLanes: s.noLanes, Daemon: "test",
		Directory: directory.New(directory.Options{
			Arena: a, Clock: w.clock, Log: w.log,
			HoldDefault: s.limits.HoldDefault, HoldMax: s.limits.HoldMax, MaxHolds: s.limits.MaxHolds,
		}),
	})
	identify := func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if id, ok := auth.FromContext(stream.Context()); ok && s.identity != nil {
			stream = other{stream, auth.NewContext(stream.Context(), s.identity(id))}
		}
		return policy.Stream(srv, stream, info, next)
	}
	server := grpc.NewServer(append(session.ServerOptions(s.limits),
		grpc.Creds(auth.NewCredentials(nil)), grpc.StreamInterceptor(identify))...)
	larderv1.RegisterEngineServer(server, w.sessions)
	l, err := net.Listen("unix", w.socket)
	require.NoError(t, err)
	h := handover.New(handover.Options{Sessions: w.sessions})
	hl, err := listen.Unix(w.handover, listen.Options{Mode: 0o600, Refused: h.Refuse})
	require.NoError(t, err)
	served := make(chan error, 2)
	go func() { served <- server.Serve(l) }()
	go func() { served <- h.Serve(hl) }()
	w.close = sync.OnceFunc(func() {
		w.sessions.Close()
		server.Stop()
		require.NoError(t, hl.Close())
		h.Close()
		require.NoError(t, <-served)
		require.NoError(t, <-served)
		require.NoError(t, a.Close())
	})
	t.Cleanup(w.close)
	return w
}

type other struct {
	grpc.ServerStream
	ctx context.Context
}

func (o other) Context() context.Context { return o.ctx }

func (w *world) connect(mods ...func(*larderv1.Hello)) *rawtest.Client {
	c := rawtest.Connect(w.t, w.socket, w.handover, mods...)
	if w.lane {
		c.Lane()
	}
	return c
}

// overBoth runs a test over a stream and over a lane.
func overBoth(t *testing.T, run func(t *testing.T, lane bool)) {
	t.Run("stream", func(t *testing.T) { run(t, false) })
	t.Run("lane", func(t *testing.T) { run(t, true) })
}

func (w *world) open() *rawtest.Client { return rawtest.Open(w.t, w.socket, w.handover) }

// advance moves the clock and lets the daemon see it.
func (w *world) advance(d time.Duration) {
	w.clock.now.Add(int64(d))
	w.sessions.Tick()
}

// openNow waits until so many sessions are open, however many are in
// quarantine.
func (w *world) openNow(n int) { w.settled(n, -1) }

// settled waits until so many sessions are open and in quarantine.
func (w *world) settled(open, quarantined int) {
	deadline := time.Now().Add(time.Minute)
	for {
		o, q := w.sessions.Count()
		if o == open && (q == quarantined || quarantined < 0) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d sessions open and %d in quarantine, want %d and %d", o, q, open, quarantined)
		}
		time.Sleep(time.Millisecond)
	}
}
