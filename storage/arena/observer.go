package arena

import "github.com/larderkv/larder/api/keys"

// ChunkInfo describes a chunk to an Observer.
type ChunkInfo struct {
	Scope       Scope
	Key, Parent keys.Key
	Ordinal     uint32
	Tokens      uint16
	Quality     uint8
	// Parts present, of Expected.
	Parts, Expected int
	// Bytes of its slots.
	Bytes int64
}

// Reason says why a chunk went.
type Reason uint8

const (
	// Evicted: room was needed.
	Evicted Reason = 1
	// Deleted: by Drop.
	Deleted Reason = 2
	// Cleared: by Clear.
	Cleared Reason = 3
	// Corrupted: its bytes do not match their checksums.
	Corrupted Reason = 4
	// Pending: the chunk waited for parts that did not come in time, or too much
	// memory waited for missing parts.
	Pending Reason = 5
	// Replaced: the same chunk came in better quality.
	Replaced Reason = 6
)

var reasonNames = [...]string{"", "evicted", "deleted", "cleared", "corrupt", "pending", "replaced"}

// String returns the reason as metrics labels and explanations show it.
func (r Reason) String() string {
	if int(r) >= len(reasonNames) {
		return "unknown"
	}
	return reasonNames[r]
}

// Cause says more about a drop.
type Cause struct {
	// Text is for people.
	Text string
	// By is who asked for the room; the zero value where nobody did.
	By Requester
}

// Requester asks for a slot.
type Requester struct {
	Scope Scope
	// Owner is the session; 0 for a put through a stream.
	Owner Owner
	// Bytes of the slot.
	Bytes int64
}

// Observer learns what becomes visible and what goes. It is called under the
// arena's lock: it must not block and must not call the arena.
type Observer interface {
	Published(ChunkInfo)
	// Dropped is also called for chunks that were never visible (Pending).
	Dropped(info ChunkInfo, reason Reason, cause Cause)
}
