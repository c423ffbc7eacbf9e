package arena

import (
	"context"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Contract lists the methods of *Arena while they are being written.
type Contract interface {
	Close() error
	Handles() Handles
	Namespace(NamespaceSpec) (uint16, error)
	Tenant(id [32]byte) (uint16, error)
	// Epoch of a scope; a Clear that touches it bumps it.
	Epoch(Scope) uint64
	Attach(Owner, Scope) error
	// WriteSegment returns the owner's write segment in guarded mode; the
	// caller must not close fd.
	WriteSegment(Owner) (fd int, bytes int64, ok bool)
	Grant(o Owner, length int64, n int, dst []Grant) ([]Grant, error)
	Return(o Owner, slots []Slot) error
	Commit(ctx context.Context, o Owner, c Chunk, parts []PartCommit, out []Result) []Result
	// Put stores a part from the daemon's own memory.
	Put(ctx context.Context, s Scope, c Chunk, p int, src []byte) Result
	Match(s Scope, ks []byte, worst uint8, hold bool, dst []ChunkRef) (refs []ChunkRef, quality uint8)
	Unhold(refs []ChunkRef)
	// Lease makes parts (nil = all, in the namespace's order) of one chunk
	// readable: one call for a chunk. Verify each before it is handed out.
	Lease(o Owner, load uint64, ref ChunkRef, parts []int, dst []Leased) ([]Leased, error)
	Verify(Leased) error
	Descriptor(Leased, *part.Descriptor) error
	Release(o Owner, load uint64) (confirmed bool)
	Expire(now int64) []Revocation
	Overdue(now int64) []Owner
	AnswerRevoke(o Owner, slots []Slot, loads []uint64)
	// Detach returns the bytes that stay in quarantine until Gone; 0 = the
	// owner is forgotten.
	Detach(Owner) int64
	Gone(Owner)
	Drop(s Scope, key keys.Key) bool
	Clear(Filter) (chunks int, bytes int64)
	Inspect(key keys.Key) []Inspection
	Stats() Stats
	Scrub(ctx context.Context, budget int64) (checked, corrupt int)
	Tier(Scope) storage.Tier
}

// Handles are the descriptors of an arena.
type Handles struct {
	// Segments in the order of the hand-over, with their sizes.
	Segments     []int
	SegmentBytes []int64
	// Sidecar is never handed to clients.
	Sidecar int
}

// Inspection shows a chunk to an operator.
type Inspection struct {
	Info          ChunkInfo
	Complete      bool
	Holds, Leases int
	Parts         []InspectedPart
}

// InspectedPart shows one part of it.
type InspectedPart struct {
	Slot       Slot
	Descriptor part.Descriptor
}

// Stats are gauges and counters since Open.
type Stats struct {
	// Bytes.
	Budget, Used, Granted, Leased, Quarantined, Pending int64
	Prefaulted, HugePages                               int64
	// Sidecar and Metadata: memory beside the budget, bytes in use.
	Sidecar, Metadata int64
	// Visible chunks and their parts; chunks that wait for parts.
	Chunks, Parts, PendingChunks int
	Owners, QuarantinedOwners    int

	// Counters.
	PublishedChunks, EvictedChunks, IncompleteChunks, DeletedChunks, ClearedChunks, ReplacedChunks uint64
	StoredParts, StoredBytes, DuplicateParts, ConflictParts, RejectedParts                         uint64
	LeasedParts, LeasedBytes, VerifiedParts, CorruptParts                                          uint64
	Grants, FullGrants, Revokes, Quarantines                                                       uint64
}
