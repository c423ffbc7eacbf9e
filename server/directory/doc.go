// Package directory answers what can be loaded, keeps the holds that make the
// answer last, and remembers why chunks are absent.
//
// A Match walks through the tiers: what is in the arena is held, what lies below
// is named and brought when it is loaded. A
// hold belongs to an engine instance, not to a session: the scheduler of an
// engine takes it and its workers load under it. The log behind
// Admin.Explain keeps the roots that were asked for and the chunks that were
// dropped, each in a ring of fixed size.
//
// Invariants:
//
//   - An instance is its random id within a scope and a user: naming another's
//     id reaches none of its holds.
//   - A hold ends once: by its owner, with its instance, or at its deadline.
//     Whoever ends it returns its pins to the arena.
//   - Log entries are hints for people. Losing them changes no answer to an
//     engine.
//
// Concurrency: all methods are safe for concurrent use. The mutex of the
// holds is never held while the arena is called. Observer methods run under
// the arena's lock: they take only the log's mutex, under which nothing
// blocks. The package starts no goroutine; Expire is called by whoever has a
// clock.
//
// It does not decide what to evict, moves no bytes and knows no sessions.
package directory
