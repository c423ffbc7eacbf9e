// Package handover serves the socket that hands the arena's descriptors to
// engines, because gRPC cannot pass descriptors.
//
// One exchange for each connection (storage/arena/PROTOCOL.md): the client
// sends "LDH1" and its session token; the daemon answers with a status, a text
// where it says no, and the descriptors: segments in order, the write segment
// in guarded mode, and last the write end of a pipe by whose end the daemon
// sees that the process is gone where it has no pidfd of it.
//
// Invariants:
//
//   - Descriptors go only to the process that opened the session, as far as
//     the kernel can tell, never to another uid.
//   - The session knows of the pipe before the client has it.
//   - Number and duration of connections are bounded; at the limit of open
//     files callers get an answer and the service goes on. What callers can make the
//     log say is bounded, too.
//
// The package knows no sessions and owns no arena: it asks Sessions.
package handover
