package tiers

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiered"
	"github.com/larderkv/larder/storage/tiertest"
)

var (
	pinScope  = arena.Scope{Namespace: 1, Tenant: 1}
	pinLayout = storage.Layout{{RawLength: 16 << 10, Layers: 4}}
)

// pinChunk is what a chunk takes on the disk.
const pinChunk = 16 << 10

func pinKey(n int) (k keys.Key) {
	binary.LittleEndian.PutUint64(k[:], uint64(n))
	k[15] = 1
	return k
}

func pinKeys(from, to int) (list []keys.Key) {
	for n := from; n < to; n++ {
		list = append(list, pinKey(n))
	}
	return list
}

func putChunk(t *testing.T, to storage.Tier, n int) {
	t.Helper()
	b := make([]byte, pinLayout[0].RawLength)
	binary.LittleEndian.PutUint64(b, uint64(n))
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: pinKey(n)}, Parent: pinKey(n - 1), Ordinal: uint32(n)}, pinLayout[0], b)
	require.NoError(t, err)
	out, err := to.Put(t.Context(), d, b)
	require.NoError(t, err)
	require.Equal(t, storage.Published, out)
}

// stores are so many disks, with shares of pins in percent, and one more that
// stands for the arena.
func stores(t *testing.T, percents ...int) (tiers *Tiers, disks []*nvme.Tier, front *nvme.Tier, all []*nvme.Store) {
	t.Helper()
	p := &pair{layout: pinLayout}
	open := func(percent int) (*nvme.Store, *nvme.Tier) {
		s, _, err := nvme.Open(t.Context(), t.TempDir(), nvme.Options{
			PinnedPercent: percent, ForwardPercent: -1, Tick: time.Hour,
			Segment: segment.Options{Budget: 8 << 20, Reserve: 1 << 20, SegmentBytes: 64 << 10, Lanes: 1, Buffered: true},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		tier, err := s.Tier(p.scope, pinLayout)
		require.NoError(t, err)
		return s, tier
	}
	var list []tiered.Weighted[admitted]
	for i, percent := range percents {
		s, tier := open(percent)
		d := drive{Device{Store: s, Weight: 1}, tiered.NewBudget(0, nil)}
		a := d.admit(tier)
		list = append(list, tiered.Weighted[admitted]{Name: string(rune('a' + i)), Weight: 1, Device: a})
		p.disks, disks, all = append(p.disks, a), append(disks, tier), append(all, s)
	}
	_, front = open(0)
	p.source = front
	var err error
	p.disk, err = tiered.NewSpread(list)
	require.NoError(t, err)
	pool, err := coded.NewPool(coded.Options{})
	require.NoError(t, err)
	p.stage = pool.Stage(&namespace.Descriptor{}, pinLayout, coded.Raw)
	p.below = p.stage.Over(p.disk)
	tiers = New(Options{})
	t.Cleanup(tiers.Close)
	tiers.scopes[pinScope] = p
	return tiers, disks, front, all
}

// A prompt of several batches in the oldest segments of a full disk is pinned
// whole, some of it from memory: room is not made of what comes later.
func TestPinSparesLaterBatches(t *testing.T) {
	tiers, disks, front, all := stores(t, 80)
	disk, s := disks[0], all[0]
	const prompt = 2*pinBatch + pinBatch/2
	for n := range prompt {
		to := disk
		if n%8 == 7 {
			to = front
		}
		putChunk(t, to, n)
	}
	for n := prompt; s.Stats().Segments.Room >= 2*s.Stats().Segments.SegmentBytes; n++ {
		putChunk(t, disk, n)
	}
	require.Zero(t, s.Stats().DroppedSegments)
	m, err := tiers.Pin(t.Context(), pinScope, pinKeys(0, prompt), false)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: prompt, Bytes: prompt * pinChunk}, m)
	require.NotZero(t, s.Stats().DroppedSegments, "there was room enough; this shows nothing")
	for _, key := range pinKeys(0, prompt) {
		require.True(t, disk.IsPinned(key))
	}
}

// Of two copies of a chunk one is pinned, the one that is already; unpin takes the
// pins of both and counts the chunk once.
func TestPinTwoCopies(t *testing.T) {
	tiers, disks, _, _ := stores(t, 20, 20)
	a, b := disks[0], disks[1]
	const n = 8 // some have their place on either disk
	all := pinKeys(0, n)
	pinned := func(on *nvme.Tier) (count int) {
		for _, key := range all {
			if on.IsPinned(key) {
				count++
			}
		}
		return count
	}
	for i := range n {
		putChunk(t, a, i)
		putChunk(t, b.Pinned(), i)
	}
	m, err := tiers.Pin(t.Context(), pinScope, all, false)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: n}, m, "they are")
	require.Zero(t, pinned(a))
	require.Equal(t, n, pinned(b))

	// Pinned while the other disk was away, they are so twice.
	_, err = a.Pin(t.Context(), all)
	require.NoError(t, err)
	m, err = tiers.Pin(t.Context(), pinScope, all, false)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: n}, m)
	list := append(pinKeys(0, n), pinKey(99))
	m, err = tiers.Pin(t.Context(), pinScope, list, true)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: n, Bytes: 2 * n * pinChunk, Absent: 1}, m)
	require.Zero(t, pinned(a))
	require.Zero(t, pinned(b))
	m, err = tiers.Pin(t.Context(), pinScope, all, true)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: n}, m)

	m, err = tiers.Pin(t.Context(), pinScope, all, false)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: n, Bytes: n * pinChunk}, m)
	require.Equal(t, n, pinned(a)+pinned(b), "one copy of each")
	require.NotZero(t, pinned(a))
	require.NotZero(t, pinned(b))
}
