package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/handover"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage/arena"
)

const (
	instanceSize = 16
	maxEnded     = 64
	maxLabel     = 256
)

// greet checks a hello and opens the session.
func (s *session) greet(h *larderv1.Hello) (*larderv1.HelloReply, error) {
	if err := checkHello(h); err != nil {
		return nil, err
	}
	v := s.service
	name, ok := v.options.Policy.Tenant(s.peer, h.GetTenant())
	if !ok {
		return nil, fault.New(fault.Denied, "hello.tenant", "%s may not act for this tenant", s.peer).With(name, nil)
	}
	// What the ended sessions held may be what this one needs.
	v.release(h.GetEndedSessions(), s.peer)
	tenant, err := v.options.Registry.Tenant(name)
	if err != nil {
		return nil, err
	}
	var ns *registry.Namespace
	if len(h.GetNamespace()) > 0 {
		if ns, err = v.options.Registry.Register(h.GetNamespace(), namespace.Fingerprint(h.GetFingerprint())); err != nil {
			return nil, err
		}
	}

	reply := &larderv1.HelloReply{
		Major: Major, Minor: Minor,
		SessionId: s.id, SessionToken: make([]byte, handover.TokenSize), TenantKey: tenant.Key[:],
		Limits: v.options.Limits.proto(), Daemon: v.options.Daemon,
	}
	rand.Read(reply.SessionToken) // never fails
	if s.peer.Local && !v.options.NoLanes {
		reply.LaneSocket = v.options.HandoverSocket
	}
	if ns != nil {
		s.scope = arena.Scope{Namespace: ns.Number, Tenant: tenant.Number}
		if v.options.Policy.SharesMemory(s.peer) && h.GetRole() != larderv1.Role_ROLE_SCHEDULER {
			if err := v.options.Arena.Attach(s.owner(), s.scope); err != nil {
				return nil, err
			}
			s.attached = true
			reply.Arena = v.arenaInfo(s.owner())
			s.writeBytes = int64(reply.Arena.GetWriteSegmentBytes())
		}
		if v.options.Below != nil {
			v.options.Below.Open(s.scope)
		}
		reply.Epoch = v.options.Arena.Epoch(s.scope)
		s.epoch.Store(reply.Epoch)
		reply.Parts = ns.Specs
		s.lengths = make([]int64, len(ns.Parts))
		for i, p := range ns.Parts {
			s.lengths[i] = int64(p.RawLength)
		}
		s.instance = v.options.Directory.Join(directory.InstanceKey{
			ID: [instanceSize]byte(h.GetInstanceId()), Scope: s.scope, Domain: domain(s.peer),
		})
		ns.Enter()
	}
	s.peer.Process.Ref()
	s.hello, s.tenant, s.namespace, s.token = h, tenant, ns, reply.SessionToken
	// Nothing needs the descriptor any more, and it may be a megabyte.
	h.Namespace = nil
	v.mu.Lock()
	v.tokens[sha256.Sum256(s.token)] = s
	s.ready.Store(true)
	draining := v.draining
	v.mu.Unlock()
	if draining {
		s.events.post(func(p *pending) { p.draining = &larderv1.Draining{} })
	}
	v.options.Logger.Info("session opened", "session", s.id, "caller", s.peer.String(), "role", roleName(h.GetRole()),
		"engine", h.GetEngine(), "client", h.GetClient(), "tenant", tenant.Name, "namespace", s.namespaceName())
	return reply, nil
}

func checkHello(h *larderv1.Hello) error {
	if h.GetMajor() != Major {
		return fault.New(fault.Invalid, "hello.major", "client and daemon speak different major versions").
			With(h.GetMajor(), Major)
	}
	if len(h.GetInstanceId()) != instanceSize {
		return fault.New(fault.Invalid, "hello.instance_id", "wrong length").With(len(h.GetInstanceId()), instanceSize)
	}
	switch h.GetRole() {
	case larderv1.Role_ROLE_SCHEDULER, larderv1.Role_ROLE_WORKER, larderv1.Role_ROLE_CLIENT:
	default:
		return fault.New(fault.Invalid, "hello.role", "unknown role").With(int32(h.GetRole()), "scheduler, worker or client")
	}
	r := h.GetRanks()
	for _, c := range []struct {
		field      string
		rank, size uint32
	}{
		{"data", r.GetData(), r.GetDataSize()},
		{"pipeline", r.GetPipeline(), r.GetPipelineSize()},
		{"tensor", r.GetTensor(), r.GetTensorSize()},
	} {
		if c.size > 0 && c.rank >= c.size {
			return fault.New(fault.Invalid, "hello.ranks."+c.field, "a rank is below its size").With(c.rank, c.size)
		}
	}
	if n := len(h.GetNamespace()); n > namespace.MaxEncoded {
		return fault.New(fault.Invalid, "hello.namespace", "too long").With(n, namespace.MaxEncoded)
	}
	want := sha256.Size
	if len(h.GetNamespace()) == 0 {
		want = 0
	}
	if n := len(h.GetFingerprint()); n != want {
		return fault.New(fault.Invalid, "hello.fingerprint", "wrong length for this namespace").With(n, want)
	}
	for field, text := range map[string]string{"hello.engine": h.GetEngine(), "hello.client": h.GetClient()} {
		if len(text) > maxLabel {
			return fault.New(fault.Invalid, field, "too long").With(len(text), maxLabel)
		}
	}
	if n := len(h.GetEndedSessions()); n > maxEnded {
		return fault.New(fault.Invalid, "hello.ended_sessions", "too many").With(n, maxEnded)
	}
	return nil
}

func (l *Limits) proto() *larderv1.Limits {
	return &larderv1.Limits{
		MaxInFlight:     uint32(l.MaxInFlight),
		MaxMessageBytes: uint32(l.MaxMessageBytes),
		MaxMatchChunks:  uint32(l.MaxMatchChunks),
		MaxParts:        uint32(l.MaxParts),
		MaxCredits:      uint32(l.MaxCredits),
		MaxHolds:        uint32(l.MaxHolds),
		HoldDefaultMs:   uint32(l.HoldDefault.Milliseconds()),
		HoldMaxMs:       uint32(l.HoldMax.Milliseconds()),
		LeaseMs:         uint32(l.Lease.Milliseconds()),
		RevokeGraceMs:   uint32(l.RevokeGrace.Milliseconds()),
	}
}

func (v *Service) arenaInfo(o arena.Owner) *larderv1.ArenaInfo {
	info := &larderv1.ArenaInfo{
		Mode: larderv1.ArenaMode_ARENA_MODE_SHARED, HandoverSocket: v.options.HandoverSocket,
	}
	for _, n := range v.options.Arena.Handles().SegmentBytes {
		info.SegmentBytes = append(info.SegmentBytes, uint64(n))
	}
	if v.options.Mode == arena.Guarded {
		info.Mode = larderv1.ArenaMode_ARENA_MODE_GUARDED
		if _, n, ok := v.options.Arena.WriteSegment(o); ok {
			info.WriteSegmentBytes = uint64(n)
		}
	}
	return info
}

func roleName(r larderv1.Role) string {
	switch r {
	case larderv1.Role_ROLE_SCHEDULER:
		return "scheduler"
	case larderv1.Role_ROLE_WORKER:
		return "worker"
	}
	return "client"
}

// namespaceName is for people; empty for a session without namespace.
func (s *session) namespaceName() string {
	if s.namespace == nil {
		return ""
	}
	return s.namespace.Short()
}

func instanceName(h *larderv1.Hello) string { return hex.EncodeToString(h.GetInstanceId()) }
