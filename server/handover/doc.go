// Package handover serves the socket that hands the arena's descriptors to
// engines, because gRPC cannot pass descriptors.
//
// One exchange for each connection (storage/arena/PROTOCOL.md): the client
// sends "LDH1" and its session token; the daemon answers with a status, a text
// where it says no, and the descriptors: segments in order, the write segment
// in guarded mode, and last the write end of a pipe by whose end the daemon
// sees that the process is gone where it has no pidfd of it.
//
// A client that sends "LDL1" and its token gets a lane instead: after the
// answer the connection is the session's and carries its messages.
//
// Invariants:
//
//   - Descriptors go only to the process that opened the session, as far as
//     the kernel can tell, never to another uid.
//   - The session knows of the pipe before the client has it.
//   - A lane, like descriptors, is given to the process that opened the session.
//   - Number and duration of exchanges are bounded; a lane's end is its
//     session's. At the limit of open files callers get an answer and the
//     service goes on. What callers can make the log say is bounded, too.
//
// The package knows no sessions and owns no arena: it asks Sessions.
package handover
