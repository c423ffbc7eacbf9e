// Package tiered puts tiers together: small decorators over storage.Tier, and
// the two workers that move chunks between a fast front tier and a slow back
// tier.
//
//   - Admission bounds what may be written in an hour, for the life of a drive.
//   - Spread puts chunks on several devices by weight, and finds them again
//     whatever the weights were when they were written.
//   - Promoter copies chunks from back to front when they are wanted: once for
//     all who wait, so many at a time.
//   - Writer copies chunks from front to back in the background: which ones, its
//     policy says.
//
// Invariants: those of storage.Tier hold for what the decorators return.
// Nothing waits for the Writer: Offer never blocks, and what its queue cannot
// take is dropped and counted. A chunk that is deleted while it is copied does
// not come back: who deletes goes through the Gate, which waits for the copies at
// work of that chunk, boundedly. No copy waits for a removal.
//
// Concurrency: everything is safe for concurrent use. Writer has goroutines of
// its own, which end in Close; Promoter's copies end at their timeout or in
// Close, whether somebody waits for them or not.
//
// It does not: know arenas, disks or sessions, match prompts, choose between
// loading and computing.
package tiered
