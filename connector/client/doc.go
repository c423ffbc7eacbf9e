// Package client talks to larderd from a Go process: tools, benches, routers,
// and anything else that stores or loads KV without an engine around it.
//
// # Purpose
//
// A Client keeps one session with the daemon for as long as it lives: it dials
// a Unix socket or TCP with mutual TLS, says hello, maps the arena where both
// sit on one host, and does so again with back-off when the daemon went away.
// Store and Fetch copy bytes through the arena, or through streams where
// memory cannot be shared; the caller sees one API. Match, Load, Grant and
// Commit are the steps below them, for callers that pipeline by themselves.
//
// # Invariants
//
//   - Nothing waits without a bound: each call ends by its context's deadline,
//     or by Options.CallTimeout where the context has none. A client that is
//     not connected, or whose circuit breaker is open, fails calls at once
//     with fault.Unavailable.
//   - Bytes of a Load count only if Release returns true.
//   - Slots are touched only between the start and the end of a section: from
//     the first Next to Release of a Load, inside Write of a Credit. A revoke
//     that arrives in a section is answered when the section ends, and what it
//     took is dead from then on; outside of sections it is answered at once.
//   - Memory of an ended session stays mapped until the last section of that
//     session has ended. Then its lifetime pipe is closed and its token goes
//     out with a hello, so that the daemon can end the quarantine.
//   - A reply that comes after its caller gave up is not lost: holds are ended
//     and grants returned.
//
// # Concurrency
//
// All methods of Client may be called from any goroutine. A Load and a Credit
// belong to one goroutine at a time. The client runs one goroutine that
// connects, and for each session one that sends, one that receives, one that
// refills credits and one that reports ended sessions; Close ends them all and
// waits for them.
//
// # What it does not do
//
// It computes no keys (api/keys) and no namespace (api/namespace), chooses no
// prefix length, and retries nothing on its own: an engine that gets an error
// goes on without.
package client
