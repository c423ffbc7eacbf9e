package nvme

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/larderkv/larder/storage"
)

// Delete and Clear return when no copies of what they removed are on their way.
func TestRemovalWaitsForMoves(t *testing.T) {
	s := open(t, t.TempDir(), manual())
	defer s.Close()
	tier := s.tier(0)
	putChunk(t, tier, 1)
	all := func(storage.Scope) bool { return true }
	for name, remove := range map[string]func(context.Context) error{
		"delete": func(ctx context.Context) error { _, err := tier.Delete(ctx, keyOf(1)); return err },
		"clear":  func(ctx context.Context) error { _, _, err := s.Clear(ctx, all); return err },
	} {
		number := s.begin()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s while parts are moved: %v", name, err)
		}
		cancel()
		s.end(number)
		must(t, remove(t.Context()))
	}
}
