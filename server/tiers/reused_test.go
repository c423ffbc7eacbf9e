package tiers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/arena"
)

// To look at chunks that were matched again, in order to write them, is no use of
// them: what the arena evicts next is what it would evict without a disk. They are
// offered in the quality that they have, unless the disk has them.
func TestReusedIsNoUse(t *testing.T) {
	tiers, disks, _, _ := stores(t, 20)
	a, err := arena.Open(arena.Options{Budget: 2 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	ns, err := a.Namespace(arena.NamespaceSpec{Fingerprint: [32]byte{1}, Parts: pinLayout})
	require.NoError(t, err)
	tenant, err := a.Tenant([32]byte{1})
	require.NoError(t, err)
	scope := arena.Scope{Namespace: ns, Tenant: tenant}
	p := tiers.scopes[pinScope]
	p.source = a.Background(scope)
	tiers.options.Arena, tiers.scopes[scope] = a, p

	const n = 8
	list := pinKeys(0, n)
	for i := range n {
		quality := uint8(part.QualityExact)
		if i == n-1 {
			quality = 2
		}
		putChunkOf(t, a.Tier(scope), i, quality)
	}
	putChunk(t, disks[0], 2)
	flat := []byte{}
	for _, key := range list {
		flat = append(flat, key[:]...)
	}
	order := func() (keys [][]byte) {
		for _, c := range a.Coldest(2<<20, n, nil) {
			keys = append(keys, c.Key[:])
		}
		return keys
	}
	refs, _ := a.Match(scope, flat, 255, false, nil)
	require.Len(t, refs, n)
	before := order()
	require.Len(t, before, n)
	require.Equal(t, list[0][:], before[n-1], "the head is the hottest")

	tiers.offerReused(t.Context(), &reuse{scope, append(list, pinKey(n))})
	require.Equal(t, before, order())
	require.Eventually(t, func() bool { return tiers.writer.Stats().Waiting == 0 }, time.Minute, time.Millisecond)
	require.EqualValues(t, n-1, tiers.writer.Stats().Chunks, "all but the one that was there")
	for _, key := range list[:n-1] {
		require.True(t, disks[0].Has(key, part.QualityExact))
	}
	require.True(t, disks[0].Has(list[n-1], 2))
	require.False(t, disks[0].Has(list[n-1], 1))
}
