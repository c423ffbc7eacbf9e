package tiers

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
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

// lossy is an arena whose one chunk has lost something.
type lossy struct {
	Arena
	quality uint8
}

func (l lossy) Match(_ arena.Scope, _ []byte, worst uint8, _ bool, dst []arena.ChunkRef) ([]arena.ChunkRef, uint8) {
	if l.quality > worst {
		return dst, 0
	}
	return append(dst, arena.ChunkRef{}), l.quality
}

// Between a match and its load a chunk can go and a worse one of the same key
// come: the load gets no worse one than the match named.
func TestLoadsGetNoWorse(t *testing.T) {
	tiers := New(Options{Arena: lossy{quality: 3}})
	defer tiers.Close()
	scope := arena.Scope{Namespace: 1, Tenant: 1}
	tiers.scopes[scope] = &pair{front: silent{}}
	for worst, want := range []error{fault.Miss, fault.Miss, fault.Miss, nil, nil} {
		m := tiers.Start(scope, []keys.Key{{1}}, uint8(worst))
		_, err := m.Wait(t.Context(), 0)
		m.End()
		require.ErrorIs(t, err, want, "%d", worst)
	}
}
