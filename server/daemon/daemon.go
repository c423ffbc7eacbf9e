package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/handover"
	"github.com/larderkv/larder/server/listen"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/server/objects"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/server/tiers"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/bases"
	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/segment"
)

// Options beside the configuration.
type Options struct {
	Logger *slog.Logger
	// Version for people: "0.1.0".
	Version string
	// Notify tells the service manager; nil: NotifySystemd.
	Notify func(state string) error
	// Handshake is how long a connection may take to say that it speaks gRPC.
	// Default 10 s.
	Handshake time.Duration
	// NVMeFS is the file system of the nvme tier's values; nil: the system's.
	NVMeFS segment.FS
}

// Daemon is a running larderd.
type Daemon struct {
	config  *config.Loaded
	options Options
	log     *slog.Logger

	arena    *arena.Arena
	tiers    *tiers.Tiers // nil: no nvme tier
	devices  []device     // of the nvme tier, as configured; set by New
	coder    *coded.Pool  // of the nvme tier
	bases    *bases.Store // of the coder
	sessions *session.Service
	objects  *objects.Service
	handover *handover.Server
	health   *health.Server
	grpc     *grpc.Server
	calls    calls
	peers    *peers
	metrics  *metrics.Server

	loops sync.WaitGroup
	// failed gets the error of a listener that ended by itself.
	failed chan error
	// closers undo New in reverse.
	closers []func()
	once    sync.Once
}

// New opens everything and serves. On an error nothing is left behind.
func New(c *config.Loaded, o Options) (*Daemon, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = NotifySystemd
	}
	if o.Handshake == 0 {
		o.Handshake = 10 * time.Second
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Daemon{config: c, options: o, log: o.Logger, failed: make(chan error, 4), health: health.NewServer()}
	d.onClose(func() {
		stop()
		d.loops.Wait()
	})
	if err := d.start(); err != nil {
		d.undo()
		return nil, err
	}
	d.loops.Go(func() { d.sessions.Run(ctx) })
	if d.tiers != nil {
		d.loops.Go(func() { d.tiers.Run(ctx) })
	}
	if c.Host.ScrubBytes > 0 {
		d.loops.Go(func() { d.scrub(ctx) })
	}
	d.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	d.notify("READY=1")
	d.log.Info("serving", "socket", c.Listen.Socket, "handover", c.HandoverSocket(), "tcp", c.Listen.TCP,
		"metrics", d.MetricsAddr(), "budget", config.FormatSize(c.Host.Bytes), "mode", c.Host.Mode, "verify", c.Host.Verify)
	return d, nil
}

// start makes sure that no other daemon serves here before it takes memory.
func (d *Daemon) start() error {
	var paths [2]*listen.Reservation
	options := [2]string{"listen.socket", "listen.handover"}
	for i, path := range []string{d.config.Listen.Socket, d.config.HandoverSocket()} {
		r, err := listen.Reserve(path)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, options[i], "cannot serve here").With(path, nil)
		}
		d.onClose(func() { _ = r.Close() })
		paths[i] = r
	}
	if err := d.build(); err != nil {
		return err
	}
	return d.listen(paths[0], paths[1])
}

func (d *Daemon) onClose(f func()) { d.closers = append(d.closers, f) }

func (d *Daemon) undo() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
	d.closers = nil
}

func (d *Daemon) notify(state string) {
	if err := d.options.Notify(state); err != nil {
		d.log.Warn("the service manager was not told", "state", state, "error", err)
	}
}

// Run waits until ctx ends or a listener fails, then drains and closes.
func (d *Daemon) Run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-d.failed:
		d.log.Error("a listener failed", "error", err)
	}
	d.Close()
	return err
}

// Close drains for at most the option drain, then ends everything.
func (d *Daemon) Close() {
	d.once.Do(func() {
		d.log.Info("draining", "deadline", d.config.Drain)
		d.health.Shutdown()
		d.notify("STOPPING=1")
		ctx, cancel := context.WithTimeout(context.Background(), d.config.Drain)
		d.sessions.Drain(ctx)
		if d.tiers != nil {
			d.log.Info("written to the nvme tier", "chunks", d.tiers.Drain(ctx))
		}
		cancel()
		d.undo()
		d.log.Info("stopped")
	})
}

func (d *Daemon) scrub(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, corrupt := d.arena.Scrub(ctx, d.config.Host.ScrubBytes); corrupt > 0 {
				d.log.Error("damaged parts found and dropped; check the memory, and in mode shared the engines", "parts", corrupt)
			}
		}
	}
}

// MetricsAddr is where metrics are served; empty where they are off.
func (d *Daemon) MetricsAddr() string {
	if d.metrics == nil {
		return ""
	}
	return d.metrics.Addr()
}

// listen opens the sockets; a daemon that serves on some of them only is none.
func (d *Daemon) listen(socket, handover *listen.Reservation) error {
	mode := fs.FileMode(0o600)
	if len(d.config.Auth.UIDs)+len(d.config.Auth.AdminUIDs) > 0 {
		mode = 0o666 // credentials decide
	}
	h, err := handover.Listen(listen.Options{Mode: mode, Refused: d.handover.Refuse})
	if err != nil {
		return err
	}
	d.onClose(func() {
		_ = h.Close()
		d.handover.Close()
	})
	d.serve("hand-over", func() error { return d.handover.Serve(h) })

	l, err := socket.Listen(listen.Options{Mode: mode, Refused: func(u *net.UnixConn) { d.handover.Refuse(u) }})
	if err != nil {
		return err
	}
	d.onClose(func() {
		d.endStreams()
		_ = l.Close()
	})
	d.serve("socket", func() error { return d.grpc.Serve(l) })

	if d.config.Listen.TCP != "" {
		t, err := net.Listen("tcp", d.config.Listen.TCP)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "listen.tcp", "cannot listen").With(d.config.Listen.TCP, nil)
		}
		d.serve("tcp", func() error { return d.grpc.Serve(t) })
	}
	return nil
}

func (d *Daemon) serve(name string, f func() error) {
	d.loops.Go(func() {
		if err := f(); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			select {
			case d.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

func policy(c *config.Config) (*auth.Policy, error) {
	p, err := auth.New(auth.Options{
		UIDs: uids(c.Auth.UIDs), AdminUIDs: uids(c.Auth.AdminUIDs), AdminNames: c.Auth.AdminNames, TenantRules: c.Auth.Tenants,
		Remote: c.Listen.TCP != "",
	})
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "auth.tenants", "")
	}
	return p, nil
}

func uids(list []int64) []uint32 {
	out := make([]uint32, len(list))
	for i, u := range list {
		out[i] = uint32(u)
	}
	return out
}

func mutualTLS(c *config.Config) (*tls.Config, error) {
	if c.Listen.TCP == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.Listen.TLS.Cert, c.Listen.TLS.Key)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "listen.tls.cert", "cannot load certificate and key").With(c.Listen.TLS.Cert, nil)
	}
	pem, err := os.ReadFile(c.Listen.TLS.ClientCA)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "listen.tls.client_ca", "cannot read").With(c.Listen.TLS.ClientCA, nil)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "listen.tls.client_ca", "no certificate in the file").With(c.Listen.TLS.ClientCA, nil)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}
