package admin

import (
	"context"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"

	"github.com/larderkv/larder/api/keys"
)

// Arena is what the service asks of the host tier.
type Arena interface {
	Stats() arena.Stats
	Inspect(keys.Key) []arena.Inspection
	Clear(arena.Filter) (chunks int, bytes int64)
	Epoch(arena.Scope) uint64
	Tier(arena.Scope) storage.Tier
}

// Below are the tiers below the host tier.
type Below interface {
	Has(s arena.Scope, key keys.Key) (quality uint8, there bool)
	// Codec says how chunks of a namespace are written there.
	Codec(*registry.Namespace) string
	// Holders are the scopes that have the chunk, with the tier that does.
	Holders(key keys.Key) map[arena.Scope]storage.Tier
	// Pin pins chunks, or with unpin lets them go; Full is an error beside the
	// counts.
	Pin(ctx context.Context, s arena.Scope, list []keys.Key, unpin bool) (nvme.Moved, error)
	// Clear is the arena's Clear, for all tiers: host selects there, unless it is
	// nil, and below says which scopes of tiers below are cleared.
	Clear(ctx context.Context, host *arena.Filter, below func(storage.Scope) bool) (chunks int, bytes int64, err error)
}

// Sessions is what the service asks of server/session.
type Sessions interface {
	Sessions() []*larderv1.SessionStatus
	Count() (open, quarantined int)
	Draining() bool
	// Ahead is how many bytes all may have granted, 0 for no bound, and how often
	// one got less than it asked for.
	Ahead() (limit int64, short uint64)
	// EpochsChanged tells sessions what Clear did.
	EpochsChanged()
}

// Options of the service.
type Options struct {
	Arena Arena
	// Below may be nil: there is the host tier only.
	Below    Below
	Sessions Sessions
	Registry *registry.Registry
	Log      *directory.Log
	Meter    interface{ Counters() metrics.Counters }
	// NVMe is nil where there is no such tier.
	NVMe   *metrics.NVMe
	Config *config.Loaded
	// Version for people.
	Version string
	Started time.Time
	// Now defaults to time.Now.
	Now func() time.Time
}

// Service implements larder.v1.Admin.
type Service struct {
	larderv1.UnimplementedAdminServer
	options Options
}

// New makes the service.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Service{options: o}
}

// Status implements larder.v1.Admin.
func (v *Service) Status(context.Context, *larderv1.StatusRequest) (*larderv1.StatusResponse, error) {
	s, c := v.options.Arena.Stats(), v.options.Meter.Counters()
	_, quarantined := v.options.Sessions.Count()
	ahead, short := v.options.Sessions.Ahead()
	state := "serving"
	if v.options.Sessions.Draining() {
		state = "draining"
	}
	return &larderv1.StatusResponse{
		Version:  v.options.Version,
		UptimeMs: uint64(v.options.Now().Sub(v.options.Started).Milliseconds()),
		State:    state,
		Sessions: v.options.Sessions.Sessions(),
		Tiers:    v.tiers(&s),
		Host: &larderv1.HostTierStatus{
			Budget: uint64(s.Budget), Used: uint64(s.Used), Granted: uint64(s.Granted), Leased: uint64(s.Leased),
			Quarantined: uint64(s.Quarantined), Chunks: uint64(s.Chunks), Parts: uint64(s.Parts),
			PendingChunks: uint64(s.PendingChunks), Mode: v.options.Config.Host.Mode, Verify: v.options.Config.Host.Verify,
			Prefaulted: uint64(s.Prefaulted), HugePages: uint64(s.HugePages), GrantedLimit: uint64(ahead),
		},
		Counters: &larderv1.Counters{
			MatchRequests: c.MatchRequests, MatchChunksAsked: c.MatchAsked, MatchChunksHit: c.MatchHit,
			LoadedParts: c.LoadedParts, LoadedBytes: c.LoadedBytes,
			StoredParts: s.StoredParts, StoredBytes: s.StoredBytes, PublishedChunks: s.PublishedChunks,
			DuplicateParts: s.DuplicateParts, ConflictParts: s.ConflictParts, RejectedParts: s.RejectedParts,
			CorruptParts: s.CorruptParts, EvictedChunks: s.EvictedChunks, ExpiredPendingChunks: s.ExpiredPendingChunks,
			Revokes: s.Revokes, QuarantinedSessions: uint64(quarantined), ShortGrants: short,
		},
	}, nil
}

// Namespaces implements larder.v1.Admin. The namespace of opaque files is the
// one without a descriptor.
func (v *Service) Namespaces(context.Context, *larderv1.NamespacesRequest) (*larderv1.NamespacesResponse, error) {
	content := map[uint16]directory.Content{}
	for scope, c := range v.options.Log.Content() {
		sum := content[scope.Namespace]
		content[scope.Namespace] = directory.Content{Chunks: sum.Chunks + c.Chunks, Bytes: sum.Bytes + c.Bytes}
	}
	reply := &larderv1.NamespacesResponse{}
	for _, n := range v.options.Registry.Namespaces() {
		codec := ""
		if v.options.Below != nil && n.Descriptor != nil {
			codec = v.options.Below.Codec(n)
		}
		reply.Namespaces = append(reply.Namespaces, &larderv1.NamespaceStatus{
			Fingerprint: n.Fingerprint[:], Descriptor_: n.Encoded, Epoch: v.epoch(n),
			Chunks: uint64(max(0, content[n.Number].Chunks)), Bytes: uint64(max(0, content[n.Number].Bytes)),
			Sessions: uint32(n.Sessions()), Parts: n.Specs, Codec: codec,
		})
	}
	return reply, nil
}

// epoch is the highest one that a tenant sees: a clear of one tenant bumps
// only that one's.
func (v *Service) epoch(n *registry.Namespace) uint64 {
	highest := uint64(0)
	for _, t := range v.options.Registry.Tenants() {
		highest = max(highest, v.options.Arena.Epoch(arena.Scope{Namespace: n.Number, Tenant: t.Number}))
	}
	return highest
}

// Config implements larder.v1.Admin.
func (v *Service) Config(context.Context, *larderv1.ConfigRequest) (*larderv1.ConfigResponse, error) {
	reply := &larderv1.ConfigResponse{}
	for _, o := range v.options.Config.Options {
		reply.Values = append(reply.Values, &larderv1.ConfigValue{Key: o.Key, Value: o.Value(), Source: o.Source})
	}
	return reply, nil
}
