package auth

import (
	"context"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Identity is who calls, as the kernel or a certificate says.
type Identity struct {
	// Local is set for a caller over the Unix socket; then the fields up to
	// Process hold and Names is empty.
	Local bool
	UID   uint32
	GID   uint32
	// PID is 0 where the caller's pid means nothing here: it lives in another
	// PID namespace.
	PID int32
	// Process is nil on kernels before 6.5. It belongs to the connection:
	// whoever keeps it longer takes a reference.
	Process *Process
	// Names are the certificate's common name and URI names.
	Names []string
}

// AuthType names the way by which the identity was established.
func (id Identity) AuthType() string {
	if id.Local {
		return "peercred"
	}
	return "mtls"
}

// String prints the identity for people and logs.
func (id Identity) String() string {
	switch {
	case id.Local:
		return fmt.Sprintf("uid %d pid %d", id.UID, id.PID)
	case len(id.Names) > 0:
		return "certificate " + id.Names[0]
	}
	return "certificate without a name"
}

// SameProcess says whether two local identities may be one process: the same
// uid, and the same pid where both are known.
func (id Identity) SameProcess(other Identity) bool {
	if !id.Local || !other.Local || id.UID != other.UID {
		return false
	}
	return id.PID == other.PID || id.PID == 0 || other.PID == 0
}

// authInfo carries an Identity through gRPC.
type authInfo struct {
	credentials.CommonAuthInfo
	Identity
}

type contextKey struct{}

// NewContext carries an identity that was established elsewhere, such as a
// token's by an interceptor. It goes over the connection's own.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext is the identity of the caller whom a gRPC context belongs to.
func FromContext(ctx context.Context) (Identity, bool) {
	if id, ok := ctx.Value(contextKey{}).(Identity); ok {
		return id, true
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info.Identity, ok
}
