package process

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.pool.AddCert(a.cert)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	require.NoError(a.t, os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue signs a certificate, into name.pem and name.key.
func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", pkcs)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
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

// Over TCP with mutual TLS the same API goes through streams; nobody without a
// certificate gets in, and a plain certificate is no administrator.
func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	a.issue("daemon")
	engine := a.issue("engine")
	address := reservePort(t)
	d := start(t, arenaBytes, "--listen.tcp="+address, "--listen.tls.cert="+a.path("daemon.pem"), "--listen.tls.key="+a.path("daemon.key"),
		"--listen.tls.client_ca="+a.path("ca.pem"), "--auth.tenants=name:engine=blue;uid:0=blue")
	remote := func(certs ...tls.Certificate) client.Endpoint {
		return client.Endpoint{Address: address, TLS: &tls.Config{Certificates: certs, RootCAs: a.pool, ServerName: "daemon", MinVersion: tls.VersionTLS13}}
	}
	far := connect(t, d, func(o *client.Options) { o.Endpoint = remote(engine) })
	require.False(t, far.SharedMemory())
	require.Nil(t, far.Hello().GetArena())
	p := workload.NewPrompt(1, 5)
	store(t, far, p)
	requireLoaded(t, far, p)
	_, err := far.Load(t.Context(), client.LoadRequest{Hold: 1, Chunks: 1})
	require.ErrorIs(t, err, fault.Invalid, "no shared memory there")

	conn, err := client.Conn(remote(engine))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = larderv1.NewAdminClient(conn).Status(t.Context(), &larderv1.StatusRequest{})
	require.ErrorIs(t, client.FromStatus(err), fault.Denied)

	stranger := newAuthority(t).issue("stranger")
	for _, e := range []client.Endpoint{remote(), remote(stranger)} {
		c, err := client.New(client.Options{Endpoint: e, Namespace: namespaceBytes(), DialTimeout: patience})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return c.LastError() != nil }, patience, time.Millisecond)
		require.False(t, c.Ready())
		require.NoError(t, c.Close())
	}
}
