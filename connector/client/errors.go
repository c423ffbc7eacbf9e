package client

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// fromProto turns the daemon's error into a fault. A kind that this client
// does not know is Unavailable: go on without.
func fromProto(e *larderv1.Error) error {
	kind := fault.Kind(e.GetKind())
	if !kind.Valid() {
		kind = fault.Unavailable
	}
	return &fault.Error{Kind: kind, Message: e.GetMessage(), Field: e.GetField(), Value: e.GetValue(), Limit: e.GetLimit()}
}

// FromStatus turns an error of a gRPC call to larderd into a fault. It uses
// the larder.v1.Error detail where there is one, else the code.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, err, "", "no answer within the deadline")
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Unavailable, err, "", "the call was canceled")
	}
	st, ok := status.FromError(err)
	if !ok {
		return fault.Wrap(fault.Unavailable, err, "", "the connection to the daemon failed")
	}
	for _, d := range st.Details() {
		if e, ok := d.(*larderv1.Error); ok {
			return fromProto(e)
		}
	}
	if st.Code() == codes.Unimplemented || strings.Contains(st.Message(), "error reading server preface: http2") {
		return foreignServer(st)
	}
	switch st.Code() {
	case codes.NotFound:
		return fault.New(fault.Miss, "", "%s", st.Message())
	case codes.InvalidArgument, codes.OutOfRange, codes.ResourceExhausted:
		// What gRPC itself calls exhausted is a message that is too large.
		return fault.New(fault.Invalid, "", "%s", st.Message())
	case codes.PermissionDenied, codes.Unauthenticated:
		return fault.New(fault.Denied, "", "%s", st.Message())
	case codes.DataLoss:
		return fault.New(fault.Corrupt, "", "%s", st.Message())
	case codes.DeadlineExceeded:
		return fault.New(fault.Unavailable, "", "no answer within the deadline")
	}
	return fault.New(fault.Unavailable, "", "%s", st.Message())
}

// foreign is what a server said that is no larderd of this version: a call that
// it does not know, or bytes that are no gRPC.
type foreign struct{ said string }

func (f *foreign) Error() string { return f.said }

func foreignServer(st *status.Status) error {
	kind := fault.Unavailable // another program may sit at this address for a while
	if st.Code() == codes.Unimplemented {
		kind = fault.Invalid
	}
	return fault.Wrap(kind, &foreign{st.Message()}, "", "whoever answers there is no larderd of this version")
}

// Foreign reports whether an error says that the address belongs to another
// program, or to a larderd of another version.
func Foreign(err error) bool {
	var f *foreign
	return errors.As(err, &f)
}

// permanent reports whether another attempt with the same options can only
// fail likewise, until somebody changes the daemon's configuration.
func permanent(err error) bool {
	kind, _ := fault.KindOf(err)
	return kind == fault.Invalid || kind == fault.Denied
}

// outcomeOf is what a call's error says about the daemon's health, as opposed
// to a plain answer of no. A caller that lost its patience says nothing.
func outcomeOf(err error) outcome {
	kind, ok := fault.KindOf(err)
	switch {
	case !ok || kind != fault.Unavailable:
		return answered
	case errors.Is(err, context.Canceled):
		return unknown
	}
	return failed
}
