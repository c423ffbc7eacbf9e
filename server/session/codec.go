package session

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that is wrapped
	"google.golang.org/grpc/mem"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// ServerOptions are what a gRPC server that serves sessions needs. gRPC ends a
// stream by itself, without a typed error, when a message is too large or
// cannot be decoded. So it lets pass twice the limit, and decoding never
// fails: the session looks at the outcome and says what was wrong.
func ServerOptions(limits Limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(2 * limits.MaxMessageBytes),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
	}
}

// inbound is a request as it came.
type inbound struct {
	request larderv1.SessionRequest
	size    int
	err     error
}

// codec is gRPC's own, but for inbound.
type codec struct{ encoding.CodecV2 }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inbound)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.size = data.Len()
	in.err = c.CodecV2.Unmarshal(data, &in.request)
	return nil
}

// check says what is wrong with a message as such.
func (in *inbound) check(limit int) error {
	if in.size > limit {
		return fault.New(fault.Invalid, "message", "the message is too large").With(in.size, limit)
	}
	if in.err != nil {
		return fault.Wrap(fault.Invalid, in.err, "message", "the message is no SessionRequest").With(in.size, nil)
	}
	return nil
}
