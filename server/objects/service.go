package objects

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/metadata"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

// MetadataToken is the metadata key of a session's token.
const MetadataToken = "larder-session-bin"

// messageBytes is the most data in one message.
const messageBytes = 1 << 20

// Arena is what the service asks of the host tier.
type Arena interface {
	Put(ctx context.Context, s arena.Scope, c arena.Chunk, p int, src []byte) arena.Result
	Tier(arena.Scope) storage.Tier
}

// Sessions turns a token into what its session may reach.
type Sessions interface {
	Redeem(token []byte, id auth.Identity) (session.Ticket, error)
}

// Meter counts streamed bytes, and parts that were sent whole.
type Meter interface {
	Streamed(in, out int64)
	Sent(parts int, bytes int64)
}

// Options of the service.
type Options struct {
	Arena    Arena
	Sessions Sessions
	Registry *registry.Registry
	Policy   *auth.Policy
	Meter    Meter
	// MaxParts in one request; MaxFileBytes of one file.
	MaxParts     int
	MaxFileBytes int64
	// Budget of the arena in bytes; a larger file is FULL at once.
	Budget int64
	// BufferBytes of all streams together. Default 256 MiB.
	BufferBytes int64
	// Stall is how long a stream may stand still. Default 30 s.
	Stall time.Duration
}

// Service implements larder.v1.Objects.
type Service struct {
	larderv1.UnimplementedObjectsServer
	options Options
	files   *registry.Namespace
	buffers *semaphore.Weighted
	streams sync.WaitGroup
}

// New makes the service and registers the namespace of files.
func New(o Options) (*Service, error) {
	if o.BufferBytes == 0 {
		o.BufferBytes = 256 << 20
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	files, err := o.Registry.Files()
	if err != nil {
		return nil, err
	}
	return &Service{options: o, files: files, buffers: semaphore.NewWeighted(o.BufferBytes)}, nil
}

// Wait returns when no stream works any more. The gRPC server must have ended
// them.
func (v *Service) Wait() { v.streams.Wait() }

// buffer takes n bytes of the streams' memory.
func (v *Service) buffer(n int64) (buf []byte, done func(), err error) {
	if !v.buffers.TryAcquire(n) {
		return nil, nil, fault.New(fault.Busy, "", "too many streams at once for the memory they may use").With(n, v.options.BufferBytes)
	}
	return make([]byte, n), func() { v.buffers.Release(n) }, nil
}

// token is the session token of a call; nil where it has none.
func token(ctx context.Context) []byte {
	if values := metadata.ValueFromIncomingContext(ctx, MetadataToken); len(values) > 0 {
		return []byte(values[0])
	}
	return nil
}

// scope of a call about parts.
func (v *Service) scope(ctx context.Context) (session.Ticket, error) {
	id, ok := auth.FromContext(ctx)
	t := token(ctx)
	if !ok || t == nil {
		return session.Ticket{}, fault.New(fault.Denied, MetadataToken, "calls about parts carry the token of an open session")
	}
	ticket, err := v.options.Sessions.Redeem(t, id)
	if err != nil {
		return session.Ticket{}, err
	}
	if ticket.Namespace == nil {
		return session.Ticket{}, fault.New(fault.Invalid, "hello.namespace", "the session has no namespace")
	}
	return ticket, nil
}

// tenant of a call about files: the session's if it has one, else the one
// that is assigned to the caller.
func (v *Service) tenant(ctx context.Context) (*registry.Tenant, error) {
	id, ok := auth.FromContext(ctx)
	if !ok {
		return nil, fault.New(fault.Denied, "", "the connection carries no identity")
	}
	if t := token(ctx); t != nil {
		ticket, err := v.options.Sessions.Redeem(t, id)
		return ticket.Tenant, err
	}
	name, ok := v.options.Policy.Tenant(id, "")
	if !ok {
		return nil, fault.New(fault.Denied, "tenant", "%s has no tenant", id)
	}
	return v.options.Registry.Tenant(name)
}

// partID reads an id and finds its index in the namespace.
func partID(ns *registry.Namespace, p *larderv1.PartId) (id part.ID, index int, err error) {
	key, err := keys.FromBytes(p.GetChunkKey())
	if err != nil {
		return id, 0, err
	}
	for i := range ns.Parts {
		s := &ns.Parts[i]
		if uint32(s.Group) == p.GetGroup() && uint32(s.Span) == p.GetSpan() && uint32(s.HeadGroup) == p.GetHeadGroup() {
			return part.ID{Chunk: key, Group: s.Group, Span: s.Span, HeadGroup: s.HeadGroup}, i, nil
		}
	}
	return id, 0, fault.New(fault.Invalid, "part.id", "no such part in the namespace: group %d, span %d, head group %d",
		p.GetGroup(), p.GetSpan(), p.GetHeadGroup())
}

func (v *Service) partIDs(ns *registry.Namespace, g *larderv1.GetParts) ([]part.ID, int64, error) {
	if n := len(g.GetIds()); n < 1 || n > v.options.MaxParts {
		return nil, 0, fault.New(fault.Invalid, "parts.ids", "out of range").With(n, v.options.MaxParts)
	}
	if g.GetWorstQuality() > 255 {
		return nil, 0, fault.New(fault.Invalid, "parts.worst_quality", "out of range").With(g.GetWorstQuality(), "0..255")
	}
	ids := make([]part.ID, len(g.GetIds()))
	longest := int64(0)
	for i, p := range g.GetIds() {
		id, index, err := partID(ns, p)
		if err != nil {
			return nil, 0, err
		}
		ids[i] = id
		longest = max(longest, int64(ns.Parts[index].RawLength))
	}
	return ids, longest, nil
}
