// Package session is the Engine service: one long-lived stream for each engine
// process, over which it matches, holds, loads, stores and gives up slots.
//
// A stream has three goroutines. The handler waits for the end. The reader
// receives, answers what needs only the daemon's tables in place (match,
// holds, credits, release), and starts a goroutine for each load and commit
// that has bytes to check; their number is bounded by the in-flight limit, the
// checking itself by a gate as wide as the machine. The third sends events.
// Whoever has an answer sends it under the session's send lock, so nothing of
// one session waits for another's client.
//
// A session on the daemon's host may have a lane besides: a Unix socket that
// takes over all messages. Its reader is a fourth goroutine and handles them in
// the same way; the stream only tells the end, and each one's end is the
// other's.
//
// Invariants:
//
//   - Everything a client says is checked against its session: sizes, counts,
//     ownership. A wrong request gets an error and changes nothing; a stream
//     that breaks the protocol is ended with INVALID.
//   - Only sessions of one trust domain (auth.Policy.SharesMemory) have slots
//     and descriptors; others store and load through Objects.
//   - A slot of a session that has ended is free only when the arena had none
//     outstanding, or when the process is gone (pidfd, else lifetime pipe), or
//     when a later session of the same process names the token of this one.
//   - A load's parts are reported only after they were verified, and the reply
//     with done set is its last.
//   - After the answer to a commit, whatever it is, its slots are no longer
//     the client's.
//   - What all sessions have granted and did not commit is bounded, but for a
//     floor of each (ahead.go).
//   - Every list that a client can make grow has a limit: sessions, requests
//     in flight, loads, credits, holds, message bytes, revocations pending.
//
// Lock order: session.turn, then ahead.granting, then Service.mu before session.mu; the latter two
// are not held while sending or calling the arena's slow methods. The one deadline loop (Run) never sends:
// it posts events, which merge, and closes sessions.
//
// The package knows no payload, no files and no configuration.
package session
