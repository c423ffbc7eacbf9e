package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

type recorder struct {
	healthpb.UnimplementedHealthServer
	seen chan Identity
}

func (r *recorder) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	id, _ := FromContext(ctx)
	r.seen <- id
	return &healthpb.HealthCheckResponse{}, nil
}

type admin struct {
	larderv1.UnimplementedAdminServer
}

func serve(t *testing.T, l net.Listener, p *Policy, mutual *tls.Config) *recorder {
	r := &recorder{seen: make(chan Identity, 1)}
	s := grpc.NewServer(grpc.Creds(NewCredentials(mutual)), grpc.UnaryInterceptor(p.Unary), grpc.StreamInterceptor(p.Stream))
	healthpb.RegisterHealthServer(s, r)
	larderv1.RegisterAdminServer(s, admin{})
	larderv1.RegisterEngineServer(s, larderv1.UnimplementedEngineServer{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return r
}

func dial(t *testing.T, target string, c credentials.TransportCredentials) *grpc.ClientConn {
	cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(c))
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestUnixIdentity(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	p, err := New(Options{})
	require.NoError(t, err)
	r := serve(t, l, p, nil)
	cc := dial(t, "unix:"+socket, insecure.NewCredentials())
	_, err = healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	id := <-r.seen
	require.True(t, id.Local)
	require.EqualValues(t, os.Getuid(), id.UID)
	require.EqualValues(t, os.Getgid(), id.GID)
	require.EqualValues(t, os.Getpid(), id.PID)
	require.NotNil(t, id.Process, "this kernel has SO_PEERPIDFD")
	select {
	case <-id.Process.Gone():
		t.Fatal("we are alive")
	default:
	}
	_, err = larderv1.NewAdminClient(cc).Status(t.Context(), &larderv1.StatusRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err), "the role is there")
}

func TestStrangersAreDenied(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	// As if the daemon and root were other users.
	p := &Policy{own: 1 << 30, root: 1 << 30}
	serve(t, l, p, nil)
	cc := dial(t, "unix:"+socket, insecure.NewCredentials())
	_, err = healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.Len(t, status.Convert(err).Details(), 1)
	stream, err := larderv1.NewEngineClient(cc).Session(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	require.ErrorIs(t, p.Check(t.Context(), "/x/y"), fault.Denied, "no identity at all")
}

func TestPolicy(t *testing.T) {
	p, err := New(Options{
		UIDs: []uint32{100}, AdminUIDs: []uint32{200}, AdminNames: []string{"ops"}, OwnUID: 50,
		TenantRules: []string{"uid:100=a,b", "name:spiffe://x/y?z=1=c", "name:star=d,*"},
	})
	require.NoError(t, err)
	local := func(uid uint32) Identity { return Identity{Local: true, UID: uid, PID: 9} }
	cert := func(names ...string) Identity { return Identity{Names: names} }
	for _, c := range []struct {
		id             Identity
		connect, admin bool
		asked, tenant  string
		ok             bool
	}{
		{local(0), true, true, "", "default", true},
		{local(50), true, true, "any", "any", true},
		{local(100), true, false, "", "a", true},
		{local(100), true, false, "b", "b", true},
		{local(100), true, false, "c", "c", false},
		{local(200), true, true, "", "default", true},
		{local(200), true, true, "a", "a", false},
		{local(300), false, false, "", "default", true},
		{cert("ops"), true, true, "", "default", true},
		{cert("x", "spiffe://x/y?z=1"), true, false, "", "c", true},
		{cert("x", "spiffe://x/y?z=1"), true, false, "default", "default", false},
		{cert("star"), true, false, "", "d", true},
		{cert("star"), true, false, "e", "e", true},
		{cert(), false, false, "", "default", true},
	} {
		t.Run(c.id.String()+" "+c.asked, func(t *testing.T) {
			require.Equal(t, c.connect, p.MayConnect(c.id))
			require.Equal(t, c.admin, p.IsAdmin(c.id))
			tenant, ok := p.Tenant(c.id, c.asked)
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.tenant, tenant)
		})
	}
	for _, bad := range []string{"", "uid:1", "uid:x=a", "uid:4294967296=a", "gid:1=a", "name:=a", "uid:1=", "uid:1=a,,b", "uid:1=a b"} {
		_, err := New(Options{TenantRules: []string{bad}})
		require.ErrorContains(t, err, bad)
	}
	_, err = New(Options{TenantRules: []string{"uid:1=a", "uid:01=b"}})
	require.ErrorContains(t, err, "second rule")
}

func TestSameProcess(t *testing.T) {
	a := Identity{Local: true, UID: 1, PID: 2}
	b := a
	require.True(t, a.SameProcess(b))
	b.PID = 0
	require.True(t, a.SameProcess(b), "unknown pid")
	b.PID = 3
	require.False(t, a.SameProcess(b))
	b = a
	b.UID = 2
	require.False(t, a.SameProcess(b))
	require.False(t, a.SameProcess(Identity{Names: []string{"n"}}))
}

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) issue(t *testing.T, name string, uris ...*url.URL) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, URIs: uris,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p, err := New(Options{AdminNames: []string{"spiffe://larder/ops"}})
	require.NoError(t, err)
	// ClientAuth is left out on purpose: NewCredentials must not depend on it.
	r := serve(t, l, p, &tls.Config{Certificates: []tls.Certificate{ours.issue(t, "daemon")}, ClientCAs: ours.pool()})

	check := func(c credentials.TransportCredentials) (*grpc.ClientConn, error) {
		cc := dial(t, l.Addr().String(), c)
		_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return cc, err
	}
	client := func(certs ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: ours.pool(), Certificates: certs})
	}
	ops := &url.URL{Scheme: "spiffe", Host: "larder", Path: "/ops"}

	cc, err := check(client(ours.issue(t, "engine")))
	require.NoError(t, err)
	require.Equal(t, Identity{Names: []string{"engine"}}, <-r.seen)
	_, err = larderv1.NewAdminClient(cc).Status(t.Context(), &larderv1.StatusRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.Len(t, status.Convert(err).Details(), 1)

	cc, err = check(client(ours.issue(t, "person", ops)))
	require.NoError(t, err)
	require.Equal(t, []string{"person", "spiffe://larder/ops"}, (<-r.seen).Names)
	_, err = larderv1.NewAdminClient(cc).Status(t.Context(), &larderv1.StatusRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err))

	// A certificate without any name is nobody.
	_, err = check(client(ours.issue(t, "")))
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	for name, c := range map[string]credentials.TransportCredentials{
		"no certificate":    client(),
		"another authority": client(theirs.issue(t, "engine")),
		"plain text":        insecure.NewCredentials(),
	} {
		_, err := check(c)
		require.Equal(t, codes.Unavailable, status.Code(err), name)
	}
}

func TestTCPWithoutTLSIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p, err := New(Options{})
	require.NoError(t, err)
	serve(t, l, p, nil)
	cc := dial(t, l.Addr().String(), insecure.NewCredentials())
	_, err = healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
}
