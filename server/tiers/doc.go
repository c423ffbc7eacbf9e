// Package tiers is what sessions, directory and admin see of the tiers below
// the host tier. Today that is the nvme tier, on one device or several.
//
// It knows which scope of the arena is which scope on the disk, answers what is
// there (from memory), brings chunks into the arena when a load wants them, and
// lets chunks be written back: those that were matched again, and by the
// cleaner those that near the arena's eviction tail, so that dropping them loses
// nothing. On the way down it writes what is left, the most recently used first.
// What goes to a disk is coded as the operator says for its namespace, and decoded
// when it comes back (storage/coded).
//
// Invariants: nothing here makes a match wait for a disk, nor a store for a
// write. What cannot be brought in time is a miss, and so is what is worse by
// then than the match had said. Delete and Clear remove chunks from all tiers,
// and no copy under way brings them back.
//
// What it says about the cost of a load is a measurement of the last loads, of
// chunks as they came, and of what waits now; it is no promise. A tier that is
// not asked for anything seems faster with time, so that it is tried again.
//
// Devices fail one by one: chunks of one that is off are misses, new ones go to
// the others, and only where all are off there is no tier. What is deleted or
// cleared meanwhile may come back with the device, which the error says.
//
// Concurrency: everything is safe for concurrent use. Published is called
// under the arena's lock: it takes the nvme tier's lock, which is never held while
// the arena is called, and never waits.
//
// It does not: hold chunks in the arena beyond one lease, choose between loading
// and computing (engines do, by its figures), serve opaque files.
package tiers
