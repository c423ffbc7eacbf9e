// Package index remembers, over a restart, which parts lie where in the
// segments of an nvme tier. It is metadata only, in Pebble: read once, at
// start, and then written.
//
// Entries are kept under segment sequence and page. A sequence is never used
// again, so an entry of a segment that is gone matches nothing; a whole segment
// is removed by one range; and keys ascend, so that Pebble has little to do.
// Nothing is looked up by part: the tier has its directory in memory.
//
// Invariants:
//   - It is a hint. Losing it, or any of it, costs a scan of segments.
//   - Operations reach the disk in the order in which they were called, at the
//     latest SyncInterval or SyncBytes of parts after the call. So when Settled
//     has survived for a segment, everything before it has: Pebble loses the end
//     of a damaged log silently, and then the mark is lost too. A segment
//     without the mark has to be scanned.
//   - The index belongs to one store of segments, by its id; it refuses another.
//   - An error of Pebble ends writing, not the process: what follows is dropped
//     and Err says why. The next start finds segments without a mark.
//
// Concurrency: every method is safe for concurrent use. Add, Remove,
// RemoveSegment and Settled put into a buffer and never wait for the disk; one
// goroutine writes it, and ends in Close.
//
// A Reader looks into an index that nobody has open. SetAside and RemoveAside
// replace one: whatever instant a process ends at, there is an index or none.
//
// It does not: decide what is visible, touch segments, keep descriptors.
package index
