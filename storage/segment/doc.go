// Package segment keeps parts in large files on a local disk: the values of the
// nvme tier. FORMAT.md is the specification of what lies on the disk.
//
// A segment is a file of 256 MiB that is filled from front to back with groups
// and then sealed. A group is a header that names its parts, and the parts,
// written at once from the caller's memory. Which parts are alive, and where, is
// the business of an index that the caller keeps; it can be lost, since Scan
// reads all of it back.
//
// Invariants:
//   - Read returns exactly the bytes of the descriptor that it returns, of the
//     scope, the part and the descriptor checksum that the caller claims, or an
//     error. Header and bytes are verified in every Read.
//   - Append returns after the groups of its parts, and all groups before them
//     in their segment, are on the device: a killed process loses nothing that
//     was acknowledged. A power cut loses at most what was acknowledged since the
//     last sync.
//   - A segment's sequence is never used twice, and every header carries it,
//     beside the store's id and its own place. A location that outlives its
//     segment is a miss.
//   - What is sealed or was found at Open is never written again, except that
//     ranges are punched out.
//   - Files never take more than the budget, and never what the reserve of the
//     file system needs, but for what a power cut brings back of ranges that were
//     punched or cut off.
//
// Concurrency: every method is safe for concurrent use. I/O is done by the
// goroutines that call, and for an Append of several groups by helpers that end
// with it, bounded by WritesInFlight and ReadsInFlight; one goroutine of the
// store syncs and seals, and ends in Close. A caller's memory
// is read until its Append returns, and written until its Read returns. A
// context is honoured until an operation was given to the device: the device
// cannot be interrupted.
//
// Errors have kinds: Full (budget, reserve or disk: drop a segment and come
// again), Unavailable (the device failed, the store is closed, or the context is
// over), Corrupt (bytes or headers do not match their checksums), Miss (the
// segment is gone, or the place holds another part), Invalid. Nothing is tried
// twice.
//
// Check and Dump read a store without opening it. Nothing but tests uses yet:
// Options.Durable.
//
// It does not: keep an index, know which parts are alive, choose what to evict
// or to compact, decide admission. The owner of the index does.
package segment
