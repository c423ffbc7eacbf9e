package arena

// Stats are gauges, and counters since Open.
type Stats struct {
	// Bytes. Budget is what slots may use; Used what they use, in all states,
	// with Quarantined, and with write segments as a whole. Granted slots are
	// not committed yet; Leased chunks are counted once; Pending chunks wait
	// for parts.
	Budget, Used, Granted, Leased, Quarantined, Pending int64
	// Prefaulted is what the kernel granted at Open, HugePages what it maps with
	// huge pages, at most 10 s old.
	Prefaulted, HugePages int64
	// Sidecar and Metadata: memory beside the budget that is in use.
	Sidecar, Metadata int64
	// Chunks visible, with their parts; PendingChunks wait for parts.
	Chunks, Parts, PendingChunks int
	Owners, QuarantinedOwners    int

	// Chunks published, and dropped by reason.
	PublishedChunks, EvictedChunks, DeletedChunks, ClearedChunks, CorruptChunks, ExpiredPendingChunks, ReplacedChunks uint64
	// Parts of commits by outcome; StoredParts were kept.
	StoredParts, StoredBytes, DuplicateParts, ConflictParts, RejectedParts uint64
	// LeasedParts and LeasedBytes were made readable; VerifiedParts were
	// checked against their table; CorruptParts did not match it.
	LeasedParts, LeasedBytes, VerifiedParts, CorruptParts uint64
	// Grants are slots; FullGrants are calls that got none. Revokes are
	// revocations sent; Quarantines are owners that were detached with slots.
	Grants, FullGrants, Revokes, Quarantines uint64
}

// Stats returns the figures. It walks over owners with their grants and loads,
// not over chunks.
func (a *Arena) Stats() Stats {
	// Outside of the lock: the kernel may take milliseconds.
	huge := a.huge.get(a.opt.Clock.MonotonicNanos())
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return Stats{}
	}
	s := a.st
	s.Budget = a.lay.totalBytes
	if a.opt.Mode == Guarded {
		s.Budget += a.opt.WriteReserve
	}
	s.Used = a.space.usedPages*PageBytes + a.writeBytes
	s.Pending = a.pending.pages * PageBytes
	s.PendingChunks = a.pending.chunk
	s.Prefaulted, s.HugePages = a.prefaulted, huge
	s.Owners = len(a.owners)
	seen := map[uint32]bool{}
	for _, own := range a.owners {
		s.Leased += a.loadBytes(own, seen)
		if own.detached {
			s.QuarantinedOwners++
			s.Quarantined += a.ownerBytes(own)
		} else {
			s.Granted += a.grantBytes(own)
		}
	}
	s.Sidecar = headerBytes + recordBytes*int64(a.recHigh)
	s.Metadata = 16*int64(a.recHigh) + a.policy.Bytes() + a.index.Bytes() + a.space.metadata() + 24*int64(cap(a.pending.q))
	s.VerifiedParts = a.verified.Load()
	return s
}
