package nvme

import "context"

// Sync returns when everything that was put before is durable, the index
// included: a power cut then loses nothing of it. The store does so by itself
// within Segment.SyncInterval; nothing has to wait for it.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.calls.Done()
	if err := s.segments.Sync(ctx); err != nil {
		return s.device(err)
	}
	return s.release(ctx, nil)
}
