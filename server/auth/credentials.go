package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// NewCredentials are server credentials for one gRPC server on both kinds of
// listener: socket credentials on a Unix socket, mutual TLS on anything else.
// Without a TLS configuration anything else is refused.
func NewCredentials(mutual *tls.Config) credentials.TransportCredentials {
	c := &serverCredentials{}
	if mutual != nil {
		mutual = mutual.Clone()
		// Whatever the caller forgot, a connection without a verified
		// certificate must not become a caller without a name.
		mutual.ClientAuth = tls.RequireAndVerifyClientCert
		mutual.MinVersion = tls.VersionTLS13
		c.tls = credentials.NewTLS(mutual)
	}
	return c
}

type serverCredentials struct {
	tls credentials.TransportCredentials // nil: Unix sockets only
}

func (c *serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if u, ok := conn.(*net.UnixConn); ok {
		return c.local(u)
	}
	if c.tls == nil {
		return nil, nil, fmt.Errorf("connection from %s refused: no mutual TLS is configured", conn.RemoteAddr())
	}
	secured, info, err := c.tls.ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	t, ok := info.(credentials.TLSInfo)
	if !ok || len(t.State.PeerCertificates) == 0 {
		_ = secured.Close()
		return nil, nil, errors.New("TLS handshake without a client certificate")
	}
	return secured, authInfo{
		CommonAuthInfo: t.CommonAuthInfo,
		Identity:       Identity{Names: certificateNames(t.State.PeerCertificates[0])},
	}, nil
}

func (c *serverCredentials) local(u *net.UnixConn) (net.Conn, credentials.AuthInfo, error) {
	id, err := PeerIdentity(u)
	if err != nil {
		return nil, nil, err
	}
	return &localConn{UnixConn: u, process: id.Process}, authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Identity:       id,
	}, nil
}

// PeerIdentity reads the socket credentials of a Unix connection. The caller
// owns the reference to Identity.Process.
func PeerIdentity(u *net.UnixConn) (Identity, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return Identity{}, fmt.Errorf("peer credentials: %w", err)
	}
	id := Identity{Local: true}
	var sockErr error
	pidfd := -1
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr != nil {
			return
		}
		id.UID, id.GID, id.PID = cred.Uid, cred.Gid, cred.Pid
		// An error means an old kernel, a process that is gone already, or no
		// free descriptor. The session then relies on its lifetime pipe.
		if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPidfd); err == nil {
			pidfd = v
		}
	})
	if err = errors.Join(err, sockErr); err != nil {
		return Identity{}, fmt.Errorf("peer credentials: %w", err)
	}
	if pidfd >= 0 {
		unix.CloseOnExec(pidfd)
		if id.Process, err = newProcess(pidfd); err != nil {
			return Identity{}, fmt.Errorf("peer credentials: %w", err)
		}
	}
	return id, nil
}

func certificateNames(cert *x509.Certificate) []string {
	names := make([]string, 0, 1+len(cert.URIs))
	if cert.Subject.CommonName != "" {
		names = append(names, cert.Subject.CommonName)
	}
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// localConn gives the process back with the connection.
type localConn struct {
	*net.UnixConn
	process *Process
	once    sync.Once
}

func (c *localConn) Close() error {
	err := c.UnixConn.Close()
	c.once.Do(c.process.Unref)
	return err
}

func (c *serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

func (c *serverCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "larder"}
}

func (c *serverCredentials) Clone() credentials.TransportCredentials {
	d := *c
	return &d
}

func (c *serverCredentials) OverrideServerName(string) error { return nil }
