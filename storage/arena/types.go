package arena

import (
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
)

// PageBytes is the alignment of slots.
const PageBytes = 4096

// WriteSegment is the segment index of slots in an owner's own write segment
// (guarded mode).
const WriteSegment = 0xFFFF

// Owner names a session. The caller chooses the numbers and never uses one
// twice; 0 is not an owner.
type Owner uint64

// Scope is a tenant in a namespace. Chunks of one scope are invisible in every
// other, even under the same key.
type Scope struct{ Namespace, Tenant uint16 }

// ChunkRef names a chunk that a Match found. Stale references are recognised:
// they are a miss, never another chunk.
type ChunkRef struct{ Index, Generation uint32 }

// Slot names a range of a segment at one moment of its life. In arguments
// Length is not looked at.
type Slot struct {
	Segment    uint16
	Offset     uint64 // bytes, a multiple of 4096
	Length     uint64 // usable bytes
	Generation uint32
}

// Grant is the right to write a slot until the deadline, CLOCK_MONOTONIC
// nanoseconds.
type Grant struct {
	Slot     Slot
	Deadline int64
}

// Chunk is what the parts of one commit have in common.
type Chunk struct {
	Key, Parent keys.Key
	Ordinal     uint32
	Tokens      uint16 // 1..1024
	Quality     uint8  // 0 = exact, else 1 + the worst level in its history
	// Expected is the number of parts of the chunk. 0 = the namespace's list.
	// Namespaces without a list (opaque files) need it, 1..4096.
	Expected int
}

// PartCommit hands a written slot over.
type PartCommit struct {
	// Part is an index into the namespace's list, or below Expected.
	Part   int
	Slot   Slot
	Length uint64 // bytes written
}

// Outcome of a commit; see storage.Outcome.
type Outcome = storage.Outcome

// Result of one part of a commit. Err is set if and only if the outcome is
// storage.Rejected.
type Result struct {
	Outcome Outcome
	Err     error
}

// Leased is the right to read a part until the load's deadline.
type Leased struct {
	Chunk    ChunkRef
	Part     int
	Slot     Slot
	Length   uint64 // bytes of the part
	Deadline int64  // of the whole load, CLOCK_MONOTONIC nanoseconds

	rec   uint32
	owner Owner
	load  uint64
}

// Revocation lists what an owner must stop using: it is past its deadline.
type Revocation struct {
	Owner  Owner
	Grants []Slot
	Loads  []uint64
	// Deadline for the answer, CLOCK_MONOTONIC nanoseconds.
	Deadline int64
}

// PartSpec is one part of every full chunk of a namespace.
type PartSpec = storage.PartSpec

// NamespaceSpec registers a namespace.
type NamespaceSpec struct {
	Fingerprint [32]byte
	// Parts of a full chunk, ascending by span, group, head group. Empty for a
	// namespace of opaque files, whose part i is (0, 0, i), of any length and
	// with one checksum.
	Parts []PartSpec
	// Epoch is a lower bound for the namespace's epoch.
	Epoch uint64
}

// Any stands for every namespace or tenant in a Filter.
const Any = -1

// Filter selects chunks to clear; each field is a number or Any.
type Filter struct{ Namespace, Tenant int }
