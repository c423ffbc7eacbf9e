package daemon_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestHealthAndReflection(t *testing.T) {
	d := daemontest.Start(t)
	cc := d.Dial()
	h, err := healthpb.NewHealthClient(cc).Check(patience(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, h.GetStatus())

	s, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(patience(t))
	require.NoError(t, err)
	require.NoError(t, s.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}))
	r, err := s.Recv()
	require.NoError(t, err)
	var names []string
	for _, svc := range r.GetListServicesResponse().GetService() {
		names = append(names, svc.GetName())
	}
	require.Subset(t, names, []string{"larder.v1.Engine", "larder.v1.Objects", "larder.v1.Admin", "grpc.health.v1.Health"})
	require.NoError(t, s.CloseSend())
}

func TestMetrics(t *testing.T) {
	d := daemontest.Start(t, "LISTEN_METRICS=127.0.0.1:0")
	s := d.Connect()
	s.Store(s.Prompt(1, 2), 0, 2)
	s.Check(s.Prompt(1, 3), 2)
	r, err := http.Get("http://" + d.MetricsAddr() + "/metrics")
	require.NoError(t, err)
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	for _, line := range []string{
		"larder_sessions 1", "larder_match_chunks_hit_total 2", "larder_loaded_parts_total 4",
		`larder_host_chunks{state="visible"} 2`, "larder_host_chunks_published_total 2",
	} {
		require.Contains(t, string(text), line+"\n")
	}
	require.NotContains(t, string(text), d.Config.StateDir)
}

// The service manager hears of readiness and of the end, in this order and
// with the socket open in between.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	require.NoError(t, err)
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	require.NoError(t, l.SetReadDeadline(time.Now().Add(time.Minute)))
	next := func() string {
		b := make([]byte, 100)
		n, err := l.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	c := daemontest.Configure(t)
	d, err := daemon.New(c, daemon.Options{Version: "test"})
	require.NoError(t, err)
	require.Equal(t, "READY=1", next())
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	cancel()
	require.NoError(t, <-ran)
	require.Equal(t, "STOPPING=1", next())
	require.NoFileExists(t, c.Listen.Socket)

	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "nobody"))
	require.Error(t, daemon.NotifySystemd("READY=1"))
	t.Setenv("NOTIFY_SOCKET", "")
	require.NoError(t, daemon.NotifySystemd("READY=1"))
}

// A drain waits for sessions to end, at most for its time; what a client
// releases meanwhile still counts.
func TestDrain(t *testing.T) {
	d := daemontest.Start(t, "DRAIN=1m")
	s := d.Connect()
	p := s.Prompt(1, 1)
	s.Store(p, 0, 1)
	m := s.Match(p)
	l := s.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1})
	cc := d.Dial()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	cancel()
	require.NotNil(t, s.Event().GetDraining())
	h, err := healthpb.NewHealthClient(cc).Check(patience(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, h.GetStatus())
	require.Equal(t, "draining", d.Status(cc).GetState())
	require.True(t, s.Release(l.ID))
	require.NoError(t, s.End())
	require.NoError(t, <-ran)
}

func TestDrainIsBounded(t *testing.T) {
	d := daemontest.Start(t, "DRAIN=50ms")
	s := d.Connect()
	s.Credits(1)
	d.Close()
	_, err := s.Stream.Recv()
	for err == nil {
		_, err = s.Stream.Recv()
	}
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// An end waits neither for an idle connection nor for one that has said
// nothing: with handshakes of an hour this test would not end.
func TestEndWaitsForNoSilentPeer(t *testing.T) {
	c := daemontest.Configure(t)
	d, err := daemon.New(c, daemon.Options{Version: "test", Notify: func(string) error { return nil }, Handshake: time.Hour})
	require.NoError(t, err)
	silent, err := net.Dial("unix", c.Listen.Socket)
	require.NoError(t, err)
	defer silent.Close()
	idle, err := grpc.NewClient("unix:"+c.Listen.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer idle.Close()
	_, err = larderv1.NewAdminClient(idle).Status(patience(t), &larderv1.StatusRequest{})
	require.NoError(t, err)
	d.Close()
	_, err = io.ReadAll(silent)
	require.NoError(t, err, "the end of the connection")
}

func TestStartThatFails(t *testing.T) {
	write := func(path, text string) string {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	dir := t.TempDir()
	pki := newPKI(t, dir)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "nvme", "segments"), 0o700))
	write(filepath.Join(dir, "nvme", "segments", "photo"), "x")
	for name, c := range map[string]struct {
		settings []string
		text     string
	}{
		"tenant rule":    {[]string{"AUTH_TENANTS=nonsense"}, `invalid: auth.tenants: tenant rule "nonsense"`},
		"no certificate": {[]string{"LISTEN_TCP=127.0.0.1:0", "LISTEN_TLS_CERT=/none", "LISTEN_TLS_KEY=/none", "LISTEN_TLS_CLIENT_CA=/none"}, "/none"},
		"no authority":   {[]string{"LISTEN_TCP=127.0.0.1:0", "LISTEN_TLS_CERT=" + pki.cert, "LISTEN_TLS_KEY=" + pki.key, "LISTEN_TLS_CLIENT_CA=/none"}, "/none"},
		"empty authority": {[]string{"LISTEN_TCP=127.0.0.1:0", "LISTEN_TLS_CERT=" + pki.cert, "LISTEN_TLS_KEY=" + pki.key,
			"LISTEN_TLS_CLIENT_CA=" + write(filepath.Join(dir, "empty"), "")}, "no certificate in"},
		"bad address": {[]string{"LISTEN_TCP=127.0.0.1:99999", "LISTEN_TLS_CERT=" + pki.cert, "LISTEN_TLS_KEY=" + pki.key, "LISTEN_TLS_CLIENT_CA=" + pki.ca}, "99999"},
		"socket path": {[]string{"LISTEN_SOCKET=" + write(filepath.Join(dir, "file"), "x")}, "no socket"},
		"state dir":   {[]string{"STATE_DIR=" + filepath.Join(dir, "file")}, "file"},
		"metrics":     {[]string{"LISTEN_METRICS=127.0.0.1:99999"}, "invalid: listen.metrics: cannot listen; choose another port, or off (value 127.0.0.1:99999)"},
		"budget":      {[]string{"HOST_MODE=guarded", "HOST_BYTES=1MiB", "HOST_WRITE_RESERVE_BYTES=2MiB"}, "invalid: host.bytes: "},
		"no store":    {nvmeEnv(dir), "invalid: nvme.path: cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := daemontest.Configure(t, c.settings...)
			_, err := daemon.New(cfg, daemon.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test"})
			require.ErrorContains(t, err, c.text)
			// Nothing is left behind: a good daemon starts at the same paths.
			if name == "socket path" || name == "state dir" {
				return
			}
			good := daemontest.Configure(t, "LISTEN_SOCKET="+cfg.Listen.Socket)
			d, err := daemon.New(good, daemon.Options{Version: "test"})
			require.NoError(t, err)
			d.Close()
		})
	}
}

// pki is an authority and a certificate for daemon and callers alike.
type pki struct {
	ca, cert, key string
	pool          *x509.CertPool
	issue         func(name string) tls.Certificate
}

func newPKI(t *testing.T, dir string) pki {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	require.NoError(t, err)
	root, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	p := pki{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	p.pool.AddCert(root)
	p.issue = func(name string) tls.Certificate {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, root, &k.PublicKey, key)
		require.NoError(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	}
	c := p.issue("daemon")
	k, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	for path, block := range map[string]*pem.Block{
		p.ca: {Type: "CERTIFICATE", Bytes: root.Raw}, p.cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, p.key: {Type: "PRIVATE KEY", Bytes: k},
	} {
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	}
	return p
}

// Over TCP: mutual TLS, matches, no slots, parts through streams by the
// session's token, and the admin role by name.
func TestTCP(t *testing.T) {
	p := newPKI(t, t.TempDir())
	port := reservePort(t)
	d := daemontest.Start(t, "LISTEN_TCP="+port, "LISTEN_TLS_CERT="+p.cert, "LISTEN_TLS_KEY="+p.key,
		"LISTEN_TLS_CLIENT_CA="+p.ca, "AUTH_ADMIN_NAMES=ops", "AUTH_TENANTS=name:engine=default")
	local := d.Connect()
	prompt := local.Prompt(1, 2)
	local.Store(prompt, 0, 2)

	dial := func(name string) *grpc.ClientConn {
		cc, err := grpc.NewClient(port, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: p.pool, Certificates: []tls.Certificate{p.issue(name)},
		})))
		require.NoError(t, err)
		t.Cleanup(func() { _ = cc.Close() })
		return cc
	}
	cc := dial("engine")
	s, err := larderv1.NewEngineClient(cc).Session(patience(t))
	require.NoError(t, err)
	c := &rawtest.Client{T: t, Conn: cc, Stream: s}
	c.Greet()
	require.NotNil(t, c.Reply)
	require.Nil(t, c.Reply.GetArena())
	require.Equal(t, local.Reply.GetTenantKey(), c.Reply.GetTenantKey())
	require.EqualValues(t, 2, c.Match(prompt).GetChunks())
	require.NotNil(t, c.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1)).GetError())

	_, err = larderv1.NewAdminClient(cc).Status(patience(t), &larderv1.StatusRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	st, err := larderv1.NewAdminClient(dial("ops")).Status(patience(t), &larderv1.StatusRequest{})
	require.NoError(t, err)
	require.Len(t, st.GetSessions(), 2)
	require.NoError(t, c.End())
}

// reservePort is a port that nobody else is given while the test runs. It is
// bound and not listened on, with the option that lets a daemon listen on it.
func reservePort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	a, err := unix.Getsockname(fd)
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", a.(*unix.SockaddrInet4).Port)
}

func TestStrangersOnTheSocket(t *testing.T) {
	// What a stranger is told is in server/auth; here it is that the socket's
	// own mode keeps other users out unless they are named.
	for _, c := range []struct {
		setting string
		mode    os.FileMode
	}{{"AUTH_UIDS=", 0o600}, {"AUTH_UIDS=4711", 0o666}} {
		d := daemontest.Start(t, c.setting)
		for _, path := range []string{d.Config.Listen.Socket, d.Config.HandoverSocket()} {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, c.mode, info.Mode().Perm())
		}
	}
}
