package wirefault

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

var kindCodes = [...]codes.Code{
	fault.Miss:        codes.NotFound,
	fault.Busy:        codes.ResourceExhausted,
	fault.Full:        codes.ResourceExhausted,
	fault.Corrupt:     codes.DataLoss,
	fault.Unavailable: codes.Unavailable,
	fault.Invalid:     codes.InvalidArgument,
	fault.Denied:      codes.PermissionDenied,
}

// Proto is err as a message; nil for nil.
func Proto(err error) *larderv1.Error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind.Valid() {
		return &larderv1.Error{
			Kind:    larderv1.ErrorKind(f.Kind),
			Message: f.Message,
			Field:   f.Field,
			Value:   f.Value,
			Limit:   f.Limit,
		}
	}
	kind, ok := fault.KindOf(err)
	if !ok || !kind.Valid() {
		kind = fault.Unavailable
	}
	return &larderv1.Error{Kind: larderv1.ErrorKind(kind), Message: err.Error()}
}

// Status is err as a gRPC status error with a larder.v1.Error detail; nil for
// nil. A status error that gRPC made (a broken stream, say) and that carries
// no detail keeps its code and gets the detail that fits it.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		if len(st.Details()) > 0 {
			return err
		}
		return withDetail(st, &larderv1.Error{Kind: larderv1.ErrorKind(kindOfCode(st.Code())), Message: st.Message()})
	}
	p := Proto(err)
	code := kindCodes[p.Kind]
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	text := p.Message
	if f, ok := errors.AsType[*fault.Error](err); ok {
		text = f.Text()
		if f.Field != "" {
			text = f.Field + ": " + text
		}
	}
	return withDetail(status.New(code, text), p)
}

func withDetail(st *status.Status, p *larderv1.Error) error {
	detailed, err := st.WithDetails(protoadapt.MessageV1Of(p))
	if err != nil { // it cannot: p is a valid message and the code is not OK
		return st.Err()
	}
	return detailed.Err()
}

func kindOfCode(c codes.Code) fault.Kind {
	switch c {
	case codes.NotFound:
		return fault.Miss
	case codes.ResourceExhausted, codes.InvalidArgument, codes.Unimplemented, codes.OutOfRange, codes.Internal:
		// What gRPC itself calls exhausted or internal on our side is a message
		// that is too large or cannot be decoded.
		return fault.Invalid
	case codes.PermissionDenied, codes.Unauthenticated:
		return fault.Denied
	case codes.DataLoss:
		return fault.Corrupt
	}
	return fault.Unavailable
}
