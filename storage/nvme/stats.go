package nvme

import "github.com/larderkv/larder/storage/segment"

// Stats are counters since Open, and what is there now.
type Stats struct {
	// Chunks that are visible, Parts in the directory.
	Chunks, Parts int
	// Waiting chunks lack parts.
	Waiting int
	// Off: the device failed too often; the tier answers nothing until the next
	// start.
	Off bool
	// IndexLost: the index is not written any more; the next start scans.
	IndexLost bool

	Hits, Misses uint64
	ReadBytes    int64
	// Put parts and their bytes in whole pages, and those copied forward.
	PutParts                 uint64
	PutBytes, ForwardedBytes int64
	// Chunks that went, by reason.
	Evicted, Deleted, Cleared, Corrupt, Incomplete uint64
	// Stale parts were not where the directory had them.
	Stale uint64
	// Segments dropped for room, and those that were sparse.
	DroppedSegments, Compacted uint64
	DeviceErrors               uint64
	// Metadata is the directory's memory in bytes.
	Metadata int64
	Space    segment.Space
}

// Stats of now.
func (s *Store) Stats() Stats {
	sp, _ := s.segments.Space() // zero where the device does not answer
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Stats{}
	}
	st := s.st
	st.Space = sp
	st.Parts, st.Waiting, st.Off = s.dir.parts.used, len(s.assemblies), s.off
	st.Metadata = s.dir.bytes()
	st.IndexLost = s.index.Err() != nil
	return st
}
