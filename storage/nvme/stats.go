package nvme

import "github.com/larderkv/larder/storage/segment"

// Stats are counters since Open, and what is there now.
type Stats struct {
	// Chunks that are visible, Parts in the directory.
	Chunks, Parts int
	// Waiting chunks lack parts.
	Waiting int
	// Off: the device failed too often, or could not be opened; the tier answers
	// nothing until the next start. Why is the last error before.
	Off bool
	Why string
	// Created: there was no store at the start, and one was made.
	Created bool
	// IndexLost: the index is not written any more; the next start scans.
	IndexLost bool

	Hits, Misses uint64
	ReadBytes    int64
	// Put parts and their bytes in whole pages, and those copied forward.
	PutParts                 uint64
	PutBytes, ForwardedBytes int64
	// UserBytes are those of parts put, as long as they are; DeviceBytes is all
	// that was written for them: padding, headers, footers, what is copied
	// forward, and the index with its log.
	UserBytes, DeviceBytes int64
	// Chunks that went, by reason: Evicted by the budget, DiskFull by the file
	// system that had no room left.
	Evicted, DiskFull, Deleted, Cleared, Corrupt, Incomplete uint64
	// Stale parts were not where the directory had them.
	Stale uint64
	// Unread segments could not be read at the start and are left for the next.
	Unread int
	// Segments dropped by the budget, by a full file system, and those that were
	// sparse.
	DroppedSegments, DiskFullSegments, Compacted uint64
	DeviceErrors                                 uint64
	// Pinned bytes of parts in whole pages, of at most PinLimit; MovedBytes were
	// written for Pin and Unpin.
	Pinned, PinLimit, MovedBytes int64
	// Metadata is the directory's memory in bytes.
	Metadata int64
	// Segments are the figures of the files. Free is -1 where the device does not
	// answer.
	Segments segment.Stats
}

// Stats of now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Stats{}
	}
	s.calls.Add(1)
	defer s.calls.Done()
	s.mu.Unlock()
	// Neither is asked under the mutex, for which matches wait.
	files, index := s.segments.Stats(), s.index.WrittenBytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.st
	st.Segments, st.DeviceBytes = files, files.WrittenBytes+index
	st.Parts, st.Waiting, st.Off = s.dir.parts.used, len(s.assemblies), s.off
	st.Metadata = s.dir.bytes()
	st.Pinned, st.PinLimit = s.dir.pinned, s.pinLimit()
	st.Unread, st.Created = len(s.unread), s.segments.Created()
	st.IndexLost = s.index.Err() != nil
	return st
}
