package tiers

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
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
	putChunkOf(t, to, n, part.QualityExact)
}

func putChunkOf(t *testing.T, to storage.Tier, n int, quality uint8) {
	t.Helper()
	b := make([]byte, pinLayout[0].RawLength)
	binary.LittleEndian.PutUint64(b, uint64(n))
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: pinKey(n)}, Parent: pinKey(n - 1), Ordinal: uint32(n), Quality: quality}, pinLayout[0], b)
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

// codable is a namespace of pinLayout that the codec can look into.
func codable() *namespace.Descriptor {
	return &namespace.Descriptor{
		KVDtype: "bfloat16", Quantization: namespace.QuantizationNone, ChunkTokens: 64, Spans: []uint32{0},
		Layout: namespace.Layout{Name: namespace.LayoutCanonical},
		Groups: []namespace.Group{{Kind: namespace.KindFull, Layers: []uint32{0, 1, 2, 3}, KVHeads: 1, Dk: 16, Dv: 16, TokensPerEntry: 1, HeadGroup: 1}},
	}
}

// What a pin wrote is counted as it lies on the disk, coded.
func TestPinCountsCodedBytes(t *testing.T) {
	tiers, disks, front, all := stores(t, 80)
	p := tiers.scopes[pinScope]
	pool, err := coded.NewPool(coded.Options{})
	require.NoError(t, err)
	p.stage = pool.Stage(codable(), pinLayout, coded.Lossless)
	p.below = p.stage.Over(p.disk)
	require.Equal(t, coded.Lossless, p.stage.Mode())
	putChunk(t, front, 1)
	putChunk(t, front, 2)
	putChunk(t, disks[0].Pinned(), 3)
	before := all[0].Stats().Pinned
	m, err := tiers.Pin(t.Context(), pinScope, pinKeys(1, 5), false)
	require.NoError(t, err)
	written := all[0].Stats().Pinned - before
	require.Positive(t, written)
	require.Less(t, written, int64(2*pinChunk), "nothing was coded; this shows nothing")
	require.Equal(t, nvme.Moved{Chunks: 3, Bytes: written, Absent: 1}, m)
}

// A pinned chunk that has lost something stays pinned when the exact one is
// written; where the share of pins has no room for both it stays as it is, and the
// exact one is not offered again and again.
func TestPinOfWorseChunk(t *testing.T) {
	tiers, disks, front, all := stores(t, 1) // five chunks
	disk, p := disks[0], tiers.scopes[pinScope]
	write := func(n int) error { return tiers.writer.Write(t.Context(), p.down(pinKey(n), part.QualityExact)) }
	for n := 1; n <= 5; n++ {
		putChunkOf(t, disk, n, 3)
		putChunk(t, front, n)
	}
	m, err := tiers.Pin(t.Context(), pinScope, pinKeys(1, 5), false)
	require.NoError(t, err)
	require.Equal(t, nvme.Moved{Chunks: 4, Bytes: 4 * pinChunk}, m, "as they are")

	require.NoError(t, write(1))
	require.NoError(t, write(5))
	require.True(t, disk.Has(pinKey(1), part.QualityExact))
	require.True(t, disk.IsPinned(pinKey(1)))
	require.True(t, disk.Has(pinKey(5), part.QualityExact))
	require.False(t, disk.IsPinned(pinKey(5)))
	require.EqualValues(t, 4*pinChunk, all[0].Stats().Pinned)

	putChunk(t, disk.Pinned(), 6)
	require.ErrorIs(t, write(2), fault.Full)
	require.False(t, disk.Has(pinKey(2), part.QualityExact))
	require.True(t, disk.IsPinned(pinKey(2)))
	refused := tiers.writer.Stats().Refused
	tiers.offer(tiered.Cold, pinScope, pinKey(2), part.QualityExact)
	tiers.offer(tiered.Cold, pinScope, pinKey(3), part.QualityExact)
	require.Eventually(t, func() bool { return tiers.writer.Stats().Waiting == 0 }, time.Minute, time.Millisecond)
	require.Equal(t, refused, tiers.writer.Stats().Refused)
}
