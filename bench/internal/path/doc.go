// Package path is the benchmark set "path": storing and loading through shared
// memory, matching, hashing a prompt, and the daemon's memory for each part.
//
// The daemon under test is a process of its own with its shipped defaults (but
// for a prefaulted arena of 4 GiB); clients are this process and a Python
// worker. Sources, slots and destinations rotate through at least 1 GiB of
// prefaulted memory each. An operation is one batch: a store from the first
// copy until its publish is acknowledged, a load from its request until its
// release is confirmed. The baseline of verified rows does the same bytes in
// one process: one thread copies, a second one computes CRC-64, batch by batch
// as well; the baseline of rows with the suffix .trust, whose daemon verifies
// nothing, is memcpy in the same language.
package path
