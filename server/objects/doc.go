// Package objects is the Objects service: it moves the bytes of parts, and of
// opaque files, through streams, for clients that cannot map the arena.
//
// A file is one chunk of a built-in namespace, cut into pieces of 4 MiB that
// are its parts. So files are published, verified, evicted and cleared like
// everything else, and need no code in the arena.
//
// Invariants:
//
//   - A part's or file's head says its length; bytes beyond or short of it are
//     INVALID and nothing is kept visible.
//   - What is sent was verified first: the arena's copies are.
//   - Memory for streams is bounded: a stream has one buffer, all streams
//     together at most Options.BufferBytes; one more is BUSY. A stream on which
//     nothing moves for Options.Stall is ended, so no client keeps a buffer.
//   - A part is reached only through the scope of a session of the caller, a
//     file only through the caller's tenant.
package objects
