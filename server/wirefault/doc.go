// Package wirefault turns errors into what callers see: larder.v1.Error, and
// gRPC statuses that carry one as a detail.
//
// An error without a kind is a fault of ours: it becomes UNAVAILABLE towards
// the caller, who then goes on without Larder; its text goes out, too, since
// only the operator of the same host or holders of certificates see it.
// Causes (fault.Error.Err) never go out.
//
// The package has no state.
package wirefault
