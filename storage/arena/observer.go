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
	// Incomplete: parts did not come in time, or too much memory waited for
	// missing parts.
	Incomplete Reason = 5
	// Replaced: the same chunk came in better quality.
	Replaced Reason = 6
)

var reasonNames = [...]string{"", "evicted", "deleted", "cleared", "corrupt", "incomplete", "replaced"}

// String returns the reason as metrics labels and explanations show it.
func (r Reason) String() string {
	if int(r) >= len(reasonNames) {
		return "unknown"
	}
	return reasonNames[r]
}

// Observer learns what becomes visible and what goes. It is called under the
// arena's lock: it must not block and must not call the arena.
type Observer interface {
	Published(ChunkInfo)
	// Dropped is also called for chunks that were never visible (Incomplete).
	// cause is for people.
	Dropped(info ChunkInfo, reason Reason, cause string)
}
