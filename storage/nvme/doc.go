// Package nvme is the tier on a local disk: values in segments
// (storage/segment), an index that outlives the process (storage/index), and a
// directory in memory that answers everything without a disk.
//
// Invariants:
//   - A chunk is visible only while every part its namespace lists is on the
//     disk. What is incomplete is in no index and ends with the process.
//   - Get returns exactly the bytes that were put, verified, or an error.
//   - Matching never waits: no disk, no Pebble, no lock that is held across
//     either.
//   - After a kill, whatever was acknowledged is there again. Segments whose
//     last entries may be missing in the index are scanned, and so are all where
//     there is no index. A power cut takes at most what was acknowledged since
//     the last sync; what is copied forward is synced before the original goes.
//   - What Delete and Clear removed is gone when they return, after a power cut
//     too: out of view, out of the index on the disk, and its bytes punched out,
//     in this order, so that no entry outlives its bytes. They wait for whoever
//     is copying parts meanwhile, and say so where a segment is unread that may
//     hold some of it.
//   - What the device did not read at a start is not lost by it: such a segment is
//     unread until the next one, and neither compacted nor vouched for.
//   - Files keep within the budget; room is made on demand, by dropping the
//     oldest segment whole that is not pinned. Chunks that were used are copied
//     forward first, as far as writes have earned it (Options.ForwardPercent).
//   - Pinned parts lie in segments of their own class, which the segment itself
//     says, so that they are pinned after any restart. They take no more than
//     their share of the budget: what is beyond it is Full. A chunk of which
//     only some parts are pinned can be evicted. What waits to be pinned is
//     not evicted meanwhile (Tier.Spare).
//   - Whatever the disk does, the process goes on: errors are counted, and after
//     too many in a row the tier is off until the next start.
//
// Concurrency: every method is safe for concurrent use. One mutex guards the
// directory; it is held for about a microsecond a part, in batches where many
// go or are settled. Reads and writes of the disk run outside of it, on locations
// that may be gone by then, which segment tells. The order of events that
// matters for a restart is that of calls to the index, made under the mutex.
// One goroutine looks after sealed segments, incomplete chunks and sparse
// segments; it ends in Close.
//
// Check, Dump and Rebuild are for a store that no process has open: the first
// two change nothing, the third makes the index anew.
//
// Costs: 48 bytes a part, 32 a chunk, and 9 to 14 in its hash table; no Go
// pointer for either.
//
// Class 0 is normal and 1 is pinned; the other bits of the number are room for
// quota groups of tenants, each with segments of its own.
//
// Parts of a chunk that are put together (PutParts) are written together.
//
// It does not: decide what is worth writing or reading (storage/tiered), know
// arenas or sessions, keep opaque files.
package nvme
