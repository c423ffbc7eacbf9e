package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/connector/client"
)

// defaultSocket is the default of the daemon's listen.socket, and socketEnv
// the variable that changes it for both.
const (
	defaultSocket = "/run/larder/larderd.sock"
	socketEnv     = "LARDER_LISTEN_SOCKET"
)

// remote says which daemon is asked.
type remote struct {
	socket, address     string
	cert, key, ca, name string
}

func (r *remote) addFlags(f *pflag.FlagSet, getenv func(string) string) {
	socket := defaultSocket
	if v := getenv(socketEnv); v != "" {
		socket = v
	}
	f.StringVar(&r.socket, "socket", socket, "the daemon's Unix socket ["+socketEnv+"]")
	f.StringVar(&r.address, "address", "", "host:port of a daemon on another host, in place of --socket; needs --tls-cert, --tls-key and --tls-ca")
	f.StringVar(&r.cert, "tls-cert", "", "file with this caller's certificate chain, PEM")
	f.StringVar(&r.key, "tls-key", "", "file with the private key of that certificate, PEM")
	f.StringVar(&r.ca, "tls-ca", "", "file with the authorities that sign the daemon's certificate, PEM")
	f.StringVar(&r.name, "tls-name", "", "name in the daemon's certificate, if it is not the host of --address")
}

func (r *remote) endpoint() (client.Endpoint, error) {
	if r.address == "" {
		return client.Endpoint{Socket: r.socket}, nil
	}
	for name, v := range map[string]string{"--tls-cert": r.cert, "--tls-key": r.key, "--tls-ca": r.ca} {
		if v == "" {
			return client.Endpoint{}, usagef("--address needs %s: TCP is served with mutual TLS only", name)
		}
	}
	pair, err := tls.LoadX509KeyPair(r.cert, r.key)
	if err != nil {
		return client.Endpoint{}, usagef("--tls-cert, --tls-key: %v", err)
	}
	pem, err := os.ReadFile(r.ca)
	if err != nil {
		return client.Endpoint{}, usagef("--tls-ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return client.Endpoint{}, usagef("--tls-ca: %s has no certificate", r.ca)
	}
	return client.Endpoint{Address: r.address, TLS: &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: r.name, MinVersion: tls.VersionTLS13,
	}}, nil
}

// dial opens a connection and says in plain words why nobody answers.
func (r *remote) dial(ctx context.Context, timeout time.Duration) (*grpc.ClientConn, error) {
	e, err := r.endpoint()
	if err != nil {
		return nil, err
	}
	if e.Socket != "" {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", e.Socket)
		if err != nil {
			return nil, unreachable(e.Socket, err)
		}
		_ = c.Close()
	}
	return client.Conn(e)
}

func unreachable(socket string, err error) error {
	what, remedy := "no larderd answers at this socket", "start larderd, or name its socket with --socket"
	switch {
	case errors.Is(err, syscall.ENOENT):
		what = "there is no such socket"
	case errors.Is(err, syscall.EACCES):
		return withRemedy(fault.New(fault.Denied, "", "this user may not use the socket").With(socket, nil),
			"ask as root or as the daemon's user")
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EPROTOTYPE):
		what = "this is no stream socket"
	}
	return withRemedy(fault.New(fault.Unavailable, "", "%s", what).With(socket, nil), remedy)
}

// call runs f with a connection and a context that ends after --timeout.
func (a *app) call(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	conn, err := a.remote.dial(ctx, a.timeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return answer(f(ctx, conn))
}

// answer makes errors of calls plain.
func answer(err error) error {
	err = client.FromStatus(err)
	if client.Foreign(err) {
		return withRemedy(err, "give the socket of larderd (its option listen.socket, not the hand-over socket) with --socket, or install the same version of larder and larderd")
	}
	return err
}

// admin is call for the Admin service.
func (a *app) admin(ctx context.Context, f func(context.Context, larderv1.AdminClient) error) error {
	return a.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, larderv1.NewAdminClient(conn))
	})
}

// session opens a session without shared memory, for what only sessions can
// ask.
func (a *app) session(ctx context.Context, o client.Options) (*client.Client, error) {
	e, err := a.remote.endpoint()
	if err != nil {
		return nil, err
	}
	o.Endpoint, o.Engine, o.CallTimeout, o.DialTimeout = e, fmt.Sprintf("larder %s", Version()), a.timeout, a.timeout
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		_ = c.Close()
		return nil, answer(err)
	}
	return c, nil
}
