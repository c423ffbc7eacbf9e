package session

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage/arena"
)

// Major and Minor are the version of the API that this daemon speaks.
const (
	Major = 1
	Minor = 0
)

// Arena is what sessions ask of the host tier.
type Arena interface {
	Handles() arena.Handles
	Epoch(arena.Scope) uint64
	Attach(arena.Owner, arena.Scope) error
	WriteSegment(arena.Owner) (fd int, bytes int64, ok bool)
	Grant(o arena.Owner, length int64, n int, dst []arena.Grant) ([]arena.Grant, error)
	Return(o arena.Owner, slots []arena.Slot) error
	Commit(ctx context.Context, o arena.Owner, c arena.Chunk, parts []arena.PartCommit, out []arena.Result) []arena.Result
	Lease(o arena.Owner, load uint64, ref arena.ChunkRef, parts []int, dst []arena.Leased) ([]arena.Leased, error)
	Verify(arena.Leased) error
	Release(o arena.Owner, load uint64) (confirmed bool)
	Expire(now int64) []arena.Revocation
	Overdue(now int64) []arena.Owner
	Unhold([]arena.ChunkRef)
	AnswerRevoke(o arena.Owner, slots []arena.Slot, loads []uint64)
	Detach(arena.Owner) int64
	Gone(arena.Owner)
}

// Below are the tiers below the host tier.
type Below interface {
	// Open makes a scope known to them. It may take as long as a disk does.
	Open(arena.Scope)
	// Start begins to bring chunks into the arena, in the order of the list. Ones
	// that are worse than worst by then are a miss.
	Start(s arena.Scope, list []keys.Key, worst uint8) Promotion
	// Prefetch is Start for nobody in particular; it returns at once.
	Prefetch(s arena.Scope, list []keys.Key)
	// Cost is what a load that begins now may expect: the time until its first
	// chunk can be there, and the time for each chunk. It answers from memory.
	Cost(arena.Scope) (wait, each time.Duration)
}

// Promotion are the chunks of one load on their way.
type Promotion interface {
	// Wait until chunk i of the list is in the arena. It comes back held.
	Wait(ctx context.Context, i int) (arena.ChunkRef, error)
	// End says that there is no Wait to come.
	End()
}

// Meter counts what sessions do. Its methods are called on the hot path: they
// must not block.
type Meter interface {
	Matched(took time.Duration, asked, hit int)
	Loaded(took time.Duration, parts, failed int, bytes int64)
	Committed(took time.Duration, parts int, bytes int64)
	// Skipped chunks were computed though they lay in the host tier, or below.
	Skipped(host, below int)
	// Said is called for every error that is answered.
	Said(fault.Kind)
}

// Limits bound what one client may ask for; see larder.v1.Limits.
type Limits struct {
	MaxSessions     int
	MaxInFlight     int
	MaxMessageBytes int
	MaxMatchChunks  int
	MaxParts        int
	MaxCredits      int
	// CreditBytes is what all sessions together may have granted and not
	// committed, but for floors (ahead). 0, and in guarded mode, where grants
	// are slots of write segments that are reserved anyway: no bound.
	CreditBytes int64
	MaxHolds    int
	HoldDefault time.Duration
	HoldMax     time.Duration
	Lease       time.Duration
	RevokeGrace time.Duration
	// Hello bounds the time until the first message. Default 10 s.
	Hello time.Duration
}

// Options of the service.
type Options struct {
	Arena     Arena
	Directory *directory.Directory
	// Below may be nil: there is the host tier only.
	Below    Below
	Registry *registry.Registry
	Policy   *auth.Policy
	Clock    arena.Clock
	Meter    Meter
	Logger   *slog.Logger
	Limits   Limits
	// Mode and HandoverSocket are told to clients.
	Mode           arena.Mode
	HandoverSocket string
	// Checkers is how many processors check the parts of one load at a time. 0:
	// half of all, so that engines keep the others.
	Checkers int
	// NoLanes keeps all messages on streams.
	NoLanes bool
	// Daemon is the version for people, "larderd 0.1.0".
	Daemon string
}

// Service implements larder.v1.Engine.
type Service struct {
	larderv1.UnimplementedEngineServer
	options Options
	// gate bounds the goroutines that checksum at the same time.
	gate chan struct{}
	// ahead bounds grants; short counts requests that got less than they
	// asked for.
	ahead ahead
	short atomic.Uint64

	mu       sync.Mutex
	nextID   uint64
	sessions map[uint64]*session
	// tokens finds sessions by the SHA-256 of their token: what the lookup's
	// timing could tell about is no secret.
	tokens      map[[sha256.Size]byte]*session
	quarantined map[[sha256.Size]byte]*quarantine
	draining    bool
	closed      bool
	ended       sync.WaitGroup
	// quiet is signalled whenever a session has ended.
	quiet chan struct{}
}

// New makes the service. Run must be running for deadlines to be kept.
func New(o Options) *Service {
	if o.Limits.Hello == 0 {
		o.Limits.Hello = 10 * time.Second
	}
	if o.Checkers == 0 {
		o.Checkers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	most := o.Limits.CreditBytes
	if o.Mode == arena.Guarded {
		most = 0
	}
	return &Service{
		options:     o,
		ahead:       ahead{most: most},
		gate:        make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		sessions:    map[uint64]*session{},
		tokens:      map[[sha256.Size]byte]*session{},
		quarantined: map[[sha256.Size]byte]*quarantine{},
		quiet:       make(chan struct{}, 1),
	}
}

// Session implements larder.v1.Engine.
func (v *Service) Session(stream larderv1.Engine_SessionServer) error {
	id, ok := auth.FromContext(stream.Context())
	if !ok {
		return fault.New(fault.Denied, "", "the connection carries no identity")
	}
	s, err := v.open(stream, id)
	if err != nil {
		return err
	}
	return s.run()
}

// open counts the session before its hello, so that silent streams count.
func (v *Service) open(stream larderv1.Engine_SessionServer, id auth.Identity) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed || v.draining:
		return nil, fault.New(fault.Unavailable, "", "the daemon is stopping")
	case len(v.sessions)+len(v.quarantined) >= v.options.Limits.MaxSessions:
		return nil, fault.New(fault.Busy, "session.max_sessions", "too many sessions, quarantined ones included").
			With(nil, v.options.Limits.MaxSessions)
	}
	v.nextID++
	s := newSession(v, stream, id, v.nextID)
	v.sessions[s.id] = s
	v.ended.Add(1)
	return s, nil
}

// forget is the last act of a session.
func (v *Service) forget(s *session) {
	v.mu.Lock()
	delete(v.sessions, s.id)
	if s.token != nil {
		delete(v.tokens, sha256.Sum256(s.token))
	}
	v.mu.Unlock()
	select {
	case v.quiet <- struct{}{}:
	default:
	}
	v.ended.Done()
}

// snapshot lists the sessions open now.
func (v *Service) snapshot() []*session {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]*session, 0, len(v.sessions))
	for _, s := range v.sessions {
		list = append(list, s)
	}
	return list
}

// Draining says whether Drain was called.
func (v *Service) Draining() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.draining
}

// Close ends all sessions and quarantines, without freeing what is in
// quarantine, and waits for them. The gRPC server must be able to end their
// streams.
func (v *Service) Close() {
	v.mu.Lock()
	v.closed = true
	for _, q := range v.quarantined {
		q.cancel()
	}
	v.mu.Unlock()
	for _, s := range v.snapshot() {
		s.kill(fault.New(fault.Unavailable, "", "the daemon is stopping"))
	}
	v.ended.Wait()
}

// EpochsChanged tells sessions whose scope was cleared.
func (v *Service) EpochsChanged() {
	for _, s := range v.snapshot() {
		s.checkEpoch()
	}
}
