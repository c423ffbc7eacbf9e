package daemon

import (
	"math"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/admin"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/handover"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/server/objects"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

// build makes the services and wires them.
func (d *Daemon) build() error {
	c := d.config
	who, err := policy(&c.Config)
	if err != nil {
		return err
	}
	mutual, err := mutualTLS(&c.Config)
	if err != nil {
		return err
	}
	secret, err := clusterSecret(&c.Config)
	if err != nil {
		return err
	}
	clock := arena.SystemClock{}
	journal := directory.NewLog(directory.LogOptions{})
	observers := &observers{journal: journal}
	if d.arena, err = arena.Open(arenaOptions(&c.Config, observers)); err != nil {
		return asOption(err)
	}
	d.onClose(func() { _ = d.arena.Close() })
	for _, hazard := range hazards(&c.Config, who.Apart(), memTotal(), d.arena.Stats().HugePages) {
		d.log.Warn(hazard)
	}
	names := registry.New(registry.Options{
		Secret: secret, Numbers: d.arena,
		MaxNamespaces: int(c.Session.MaxNamespaces), MaxTenants: int(c.Session.MaxTenants),
		// Later than any epoch that an earlier start has given out.
		Epoch: uint64(time.Now().UnixMilli()),
	})
	if err := d.openBases(); err != nil {
		return err
	}
	nvmeSource := d.nvmeSource()
	meter, shown := metrics.New(metrics.Sources{
		Host:     d.arena.Stats,
		NVMe:     nvmeSource,
		Sessions: func() (int, int) { return d.sessions.Count() },
		Lanes:    func() int { return d.sessions.Lanes() },
		Ahead:    func() (int64, uint64) { return d.sessions.Ahead() },
		Version:  d.options.Version,
	})
	if err := d.openNVMe(names, observers, meter); err != nil {
		return err
	}
	limits := limits(&c.Session)
	limits.CreditBytes = c.Host.Bytes * c.Host.GrantedPercent / 100
	below := d.below()
	d.sessions = session.New(session.Options{
		Arena: d.arena, Below: below.sessions, Registry: names, Policy: who, Clock: clock, Meter: meter, Logger: d.log,
		Directory: directory.New(directory.Options{
			Arena: d.arena, Below: below.directory, Clock: clock, Log: journal,
			HoldDefault: limits.HoldDefault, HoldMax: limits.HoldMax, MaxHolds: limits.MaxHolds,
		}),
		Limits: limits, Mode: modes[c.Host.Mode], HandoverSocket: c.HandoverSocket(), NoLanes: !c.Session.Lanes, Daemon: "larderd " + d.options.Version,
	})
	if d.objects, err = objects.New(objects.Options{
		Arena: below.objects, Sessions: d.sessions, Registry: names, Policy: who, Meter: meter,
		MaxParts: limits.MaxParts, MaxFileBytes: c.Objects.MaxFileBytes, Budget: c.Host.Bytes,
	}); err != nil {
		return err
	}
	d.handover = handover.New(handover.Options{Sessions: d.sessions, Logger: d.log, Refused: meter.Refused})
	operator := admin.New(admin.Options{
		Arena: d.arena, Below: below.admin, Sessions: d.sessions, Registry: names, Log: journal, Meter: meter, NVMe: nvmeSource, Config: c,
		Version: d.options.Version, Started: time.Now(),
	})

	d.peers = newPeers(auth.NewCredentials(mutual))
	d.grpc = grpc.NewServer(append(transport(limits), grpc.Creds(d.peers), grpc.ConnectionTimeout(d.options.Handshake),
		grpc.ChainUnaryInterceptor(d.calls.unary, who.Unary), grpc.ChainStreamInterceptor(d.calls.stream, who.Stream))...)
	larderv1.RegisterEngineServer(d.grpc, d.sessions)
	larderv1.RegisterObjectsServer(d.grpc, d.objects)
	larderv1.RegisterAdminServer(d.grpc, operator)
	healthpb.RegisterHealthServer(d.grpc, d.health)
	reflection.Register(d.grpc)

	if c.Listen.Metrics != config.Off {
		if d.metrics, err = metrics.Serve(c.Listen.Metrics, shown); err != nil {
			return fault.Wrap(fault.Invalid, err, "listen.metrics", "cannot listen; choose another port, or off").
				With(c.Listen.Metrics, nil)
		}
		d.onClose(func() { _ = d.metrics.Close() })
	}
	return nil
}

// transport bounds what connections may use. Buffers and windows are gRPC's
// own: larger ones made no match faster, and each connection would pay for
// them. A peer that answers no ping for 50 s is gone or stopped; its sessions
// end then, and what it held goes into quarantine.
func transport(limits session.Limits) []grpc.ServerOption {
	return append(session.ServerOptions(limits),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

func clusterSecret(c *config.Config) (registry.Secret, error) {
	if c.Auth.ClusterSecret != "" {
		return registry.ParseSecret(c.Auth.ClusterSecret)
	}
	return registry.LoadSecret(c.StateDir)
}

func limits(s *config.Session) session.Limits {
	return session.Limits{
		MaxSessions: int(s.MaxSessions), MaxInFlight: int(s.MaxInFlight), MaxMessageBytes: int(s.MaxMessageBytes),
		MaxMatchChunks: int(s.MaxMatchChunks), MaxParts: int(s.MaxParts), MaxCredits: int(s.MaxCredits),
		MaxHolds: int(s.MaxHolds), HoldDefault: s.HoldDefault, HoldMax: s.HoldMax, Lease: s.Lease, RevokeGrace: s.RevokeGrace,
	}
}

// The words of the configuration and what they mean to the arena.
var (
	modes = map[string]arena.Mode{"shared": arena.Shared, "guarded": arena.Guarded}
	pages = map[string]arena.HugePages{
		"off": arena.NoHugePages, "transparent": arena.Transparent, "hugetlb2m": arena.HugeTLB2M,
	}
	verifies = map[string]arena.Verify{"always": arena.Always, "sample": arena.Sample, "off": arena.Off}
)

func arenaOptions(c *config.Config, observer arena.Observer) arena.Options {
	o := arena.Options{
		Budget: c.Host.Bytes, SegmentBytes: c.Host.SegmentBytes, Mode: modes[c.Host.Mode], Verify: verifies[c.Host.Verify],
		SampleEvery: int(c.Host.SampleEvery), Prefault: c.Host.Prefault, HugePages: pages[c.Host.HugePages],
		Lease: c.Session.Lease, RevokeGrace: c.Session.RevokeGrace, PendingTimeout: c.Host.Pending, Observer: observer,
	}
	if o.Mode == arena.Guarded {
		o.WriteSegmentBytes, o.WriteReserve = c.Host.WriteSegmentBytes, c.Host.WriteReserveBytes
	}
	return o
}
