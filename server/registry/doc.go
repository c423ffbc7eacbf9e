// Package registry knows the names of this daemon: its namespaces by
// fingerprint, its tenants, and the secret that tenants' keys come from.
//
// Invariants:
//
//   - A fingerprint has one descriptor for ever: it is its hash. Namespaces and
//     tenants are never forgotten while the daemon runs, and their number is
//     bounded; one more is FULL.
//   - The secret is made once, in the state directory, with mode 0600, and is
//     never printed, logged or sent. A file that others may read is refused: it
//     is no secret any more.
//
// Safe for concurrent use. Entries are immutable but for a session count, so
// they are read without the lock.
package registry
