// Package nvme is the benchmark set "nvme": the tier on a disk beside plain
// files with direct I/O, what it writes beyond what it was given, and how it
// comes back after a kill.
//
// The tier is storage/nvme with the daemon's defaults, in this process, but for
// a budget of 2 GiB; its segments are as long as those of the default budget.
// The plain files are on the same file system: records of the same size out of
// the same memory, as many requests at the device, files as long as segments,
// preallocated, synced every 64 MiB and at the end of an arm by a thread of
// their own, the oldest removed for a new one. Both sides have filled their
// budget before anything is measured, so that each arm of writes pays for
// removals. Sources and destinations are mapped like an arena's.
//
// Restarts are those of child processes that are killed with SIGKILL.
//
// Nothing of the set may lie in memory: a directory without direct I/O is
// refused. Everything is removed at the end. A Set is used by one goroutine.
package nvme
