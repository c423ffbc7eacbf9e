// Package auth says who is at the other end of a connection and what they may
// do.
//
// A caller over the Unix socket is known by its socket credentials: uid, gid,
// pid and, on kernels that have SO_PEERPIDFD (6.5 and later), a pidfd, which
// alone survives the reuse of pids and tells when the process is gone. A
// caller over TCP is known by the certificate of mutual TLS; there is no other
// way over TCP. Nothing a client sends in a message changes who it is.
//
// Invariants:
//
//   - Credentials are the kernel's word at connect time and never change for a
//     connection.
//   - Policy is immutable after New, so checks need no lock.
//   - Nobody who may map the arena finds bytes in it of a tenant that they may
//     not act for, except the daemon's own user and root, who could anyway.
//   - A Process holds one descriptor, closed with its last reference.
//
// The package keeps no sessions, issues no tokens and knows no tenants' keys
// (server/registry, server/session).
package auth
