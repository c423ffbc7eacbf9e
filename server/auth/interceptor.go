package auth

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/wirefault"
)

var adminPrefix = "/" + larderv1.Admin_ServiceDesc.ServiceName + "/"

// Check says no, with kind DENIED, to a caller who may not use the method. It
// looks at the full method name, so a service that is registered without any
// thought of authorisation is still closed to strangers.
func (p *Policy) Check(ctx context.Context, method string) error {
	id, ok := FromContext(ctx)
	if !ok {
		return fault.New(fault.Denied, "", "the connection carries no identity")
	}
	if !p.MayConnect(id) {
		return fault.New(fault.Denied, "auth.uids", "%s may not use this daemon", id)
	}
	if strings.HasPrefix(method, adminPrefix) && !p.IsAdmin(id) {
		return fault.New(fault.Denied, "auth.admin_uids", "%s has no admin role", id)
	}
	return nil
}

// Unary is the interceptor for unary calls. It also gives every error its
// detail.
func (p *Policy) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := p.Check(ctx, info.FullMethod); err != nil {
		return nil, wirefault.Status(err)
	}
	reply, err := next(ctx, req)
	return reply, wirefault.Status(err)
}

// Stream is the interceptor for streams. It also gives every error its detail.
func (p *Policy) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := p.Check(stream.Context(), info.FullMethod); err != nil {
		return wirefault.Status(err)
	}
	return wirefault.Status(next(srv, stream))
}
