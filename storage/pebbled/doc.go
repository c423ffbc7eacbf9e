// Package pebbled is a tier whose values lie inside Pebble: the reference
// beside which the nvme tier is held, with the same interface and suite. It is
// the shortest way to a persistent tier that is right, and not fast: one lock,
// values compacted like keys, several times the CPU and the writes of segments.
//
// A chunk is one sstable with one value for each part, under an ascending
// sequence, so that values never overlap and ingestion places them at the
// bottom; eviction and deletion excise the sequence. Another key names the
// sequence by scope and chunk; it is written, synced, after the values and
// deleted before them. A crash in between leaves values without a name, which
// Open removes.
//
// After an error that Pebble calls fatal the database may not open again.
//
// Invariants: those of storage.Tier. Budget bounds payload and descriptors,
// pending chunks included; the oldest chunk goes first.
//
// Concurrency: safe for concurrent use. Reads run beside each other.
//
// It does not: serve in larderd.
package pebbled
