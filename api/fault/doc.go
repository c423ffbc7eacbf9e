// Package fault is the closed vocabulary of reasons for which Larder says no.
//
// Every error that crosses a package or a process carries one Kind; callers
// branch on the kind, people read the text. The numbers equal
// larder.v1.ErrorKind, so that they can be sent and logged as they are.
//
// It imports the standard library only; the mapping to gRPC status lives with
// the server and the clients. Values of Error are immutable once returned and
// safe for concurrent use. The package keeps no state.
package fault
