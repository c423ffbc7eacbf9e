// Package arena is the host tier: memory segments that the daemon shares with
// the engine processes of one trust domain, cut into slots that hold parts.
// PROTOCOL.md is its specification.
//
// Invariants:
//   - A slot belongs to at most one owner or one part at a time. A deadline
//     never makes the slot of a living process reusable.
//   - A chunk is visible only while every part its namespace lists is there,
//     checksummed. A Match after an acknowledged publish sees it.
//   - Slots never use more than the budget; quarantine and write segments are
//     part of it. Room is made on demand and no call waits for any.
//   - Whatever hands bytes to others verifies them; damage is a counted miss.
//   - A reference (ChunkRef, Slot) carries a generation; a stale one is
//     recognised and harmless.
//
// Concurrency: every method is safe for concurrent use. One mutex guards all
// metadata and is held for about a microsecond a part; it is never held across
// a checksum, a copy of payload or a system call that blocks. Work outside it
// runs on slots that no one else may take: they are sealing, or their chunk is
// pinned. Observers run under the mutex and must neither block nor call back.
// The package starts no goroutine: Expire, Overdue and Scrub are called by
// whoever has a clock.
//
// Costs: a sidecar record of 128 bytes a part (and one for every 13 layers
// beyond the first), 16 bytes an entry, 8 for the order of eviction, 9 to 14 in
// the index, 4 for each page of the arena. The index grows by half in one pass
// under the lock: tens of milliseconds at a million chunks, once. Clear works
// in batches of 4096 records. Namespaces and tenants are never removed; there
// are at most 4096 of each.
//
// It does not: speak to clients, know processes, authenticate, hand over
// descriptors, decide admission or quotas, write to other tiers.
package arena
