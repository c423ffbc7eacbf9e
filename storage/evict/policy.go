package evict

// Policy orders evictable references, 1..capacity. 0 is never a reference.
type Policy interface {
	// Add makes an absent ref evictable, as the hottest.
	Add(ref uint32)
	// AddBelow makes an absent ref evictable, just colder than the present ref
	// above: a chunk that follows above in a prompt goes before it.
	AddBelow(ref, above uint32)
	// Touch notes a use of a present ref.
	Touch(ref uint32)
	// Remove forgets a present ref: it is gone, or may not be evicted.
	Remove(ref uint32)
	// Coldest fills dst with the next victims, coldest first, and returns how
	// many there are. They stay present.
	Coldest(dst []uint32) int
	// Len is the number of present references.
	Len() int
	// Bytes is the memory that the policy uses.
	Bytes() int64
	// Close frees it.
	Close() error
}

// New makes a policy for references up to capacity.
type New func(capacity int) (Policy, error)
