// Package simfs is a file system in memory for tests of segment stores: it loses
// power, tears writes, fills up and fails on demand.
//
// Invariants: what was synced survives a Crash; of what was not, each write
// survives wholly, in 512-byte pieces, or not at all, whatever came before or
// after it; changes of names survive up to some moment since the last SyncDir.
// Crash and Kill end the file system that they are called on, whose operations
// fail from then on with EIO, and return the one that the next process finds.
//
// An FS is safe for concurrent use. One mutex guards all of it. It starts no
// goroutine.
//
// It does not: check permissions, keep a page cache, know relative names or more
// than one link to a file.
package simfs
