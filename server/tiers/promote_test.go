package tiers

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/tiered"
)

// silent is a tier that answers nobody.
type silent struct {
	storage.Tier
	asked chan struct{}
}

func (s silent) Get(ctx context.Context, _ part.ID, _ *part.Descriptor, _ []byte) (int, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return 0, ctx.Err()
}

// However much is prefetched while the disk stands still, what waits for it is
// bounded.
func TestPrefetchesDoNotPileUp(t *testing.T) {
	tiers := New(Options{})
	defer tiers.Close()
	const turns = 8
	disk := silent{asked: make(chan struct{}, turns)}
	for i := range turns {
		tiers.promoter.Start(tiered.Chunk{Key: keys.Key{255, byte(i)}, Layout: make(storage.Layout, 1), From: disk, To: disk})
	}
	for range turns {
		<-disk.asked
	}
	scope := arena.Scope{Namespace: 1, Tenant: 1}
	tiers.scopes[scope] = &pair{front: disk}
	for i := range 16 {
		list := make([]keys.Key, 1000)
		for j := range list {
			binary.LittleEndian.PutUint32(list[j][:], uint32(1000*i+j))
		}
		tiers.Prefetch(scope, list)
	}
	require.Equal(t, prefetchChunks, tiers.promoter.Waiting())
	tiers.promoter.Close()
	require.Zero(t, tiers.promoter.Waiting())
}
