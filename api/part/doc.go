// Package part is the descriptor that travels with a part's bytes through
// memory, disk and wire (api/PART.md).
//
// Invariants: a descriptor has exactly one encoding, and only that decodes.
// Its checksum covers part id, every field and the checksum table, so right
// bytes under a wrong key fail. Raw parts have one checksum for each layer, so
// a range of layers verifies alone; coded parts have one for the object's
// header, which vouches for all levels and layers, and one for all of it; bundled
// ones the same of the object that they are a slice of, and of the slice. No
// size is taken from input beyond its bounds.
//
// Functions keep nothing that they are given, and allocate only where they
// return a slice that the caller did not provide. A Descriptor belongs to one
// goroutine while it changes.
//
// CRC-64/NVMe finds accidents, not forgers: whoever may write a part may write
// anything into it. What keeps tenants apart are keys, sessions and maps.
package part
