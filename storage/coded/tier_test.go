package coded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// chunkOf makes all parts of a chunk.
func chunkOf(t testing.TB, n byte, layout storage.Layout, quality uint8) (list []storage.PartBytes) {
	t.Helper()
	for i, p := range layout {
		b := make([]byte, p.RawLength)
		kv(rand.NewChaCha8([32]byte{n, byte(i)}), b)
		d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keys.Key{n}}, Parent: keys.Key{n - 1}, Ordinal: uint32(n), Quality: quality}, p, b)
		require.NoError(t, err)
		list = append(list, storage.PartBytes{Part: d, Bytes: b})
	}
	return list
}

// large is a namespace of parts that are worth coding.
func large() *namespace.Descriptor {
	d := small()
	d.ChunkTokens = 256
	d.Groups[0].Dk, d.Groups[0].Dv, d.Groups[1].Dk = 32, 32, 64
	return d
}

func put(t testing.TB, tier *Tier, list []storage.PartBytes) {
	t.Helper()
	outs, err := tier.PutParts(t.Context(), list)
	require.NoError(t, err)
	for _, out := range outs {
		require.Equal(t, storage.Kept, out)
	}
}

func get(t testing.TB, tier storage.Tier, id part.ID, size int) (part.Descriptor, []byte, error) {
	t.Helper()
	var d part.Descriptor
	b := make([]byte, size)
	n, err := tier.Get(t.Context(), id, &d, b)
	return d, b[:n], err
}

// Every mode, with exact parts and with parts of a lossy history.
func TestModes(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 2})
	size := map[Mode]int{}
	for mode := Raw; mode <= L3; mode++ {
		under := newMemory()
		tier := pool.Stage(d, layout, mode).Over(under)
		exact, lossy := chunkOf(t, 1, layout, 0), chunkOf(t, 2, layout, 2)
		put(t, tier, exact)
		put(t, tier, lossy)
		require.Equal(t, []int{len(layout), len(layout)}, under.batches)
		for i := range layout {
			for _, p := range []storage.PartBytes{exact[i], lossy[i]} {
				stored := under.parts[p.Part.ID]
				require.NoError(t, part.VerifySeal(stored.Part))
				require.NoError(t, part.Verify(stored.Part, stored.Bytes))
				require.Equal(t, mode != Raw, stored.Part.Coded(), "%v", mode)
				size[mode] += len(stored.Bytes)
				var stat part.Descriptor
				require.NoError(t, tier.Stat(t.Context(), p.Part.ID, &stat))
				require.Equal(t, *stored.Part, stat)

				got, b, err := get(t, tier, p.Part.ID, len(p.Bytes))
				require.NoError(t, err)
				require.NoError(t, part.VerifySeal(&got))
				require.NoError(t, part.Verify(&got, b))
				require.True(t, got.Raw())
				if mode < L0 || p.Part.Quality > 0 {
					require.Equal(t, *p.Part, got, "%v", mode)
					require.True(t, bytes.Equal(p.Bytes, b), "%v", mode)
					continue
				}
				require.Equal(t, mode.Quality(), got.Quality)
				require.Equal(t, got.Quality, stored.Part.Quality)
				got.Quality, got.Table, got.Checksum = p.Part.Quality, p.Part.Table, p.Part.Checksum
				require.Equal(t, *p.Part, got, "what identifies the part has changed")
				within(t, p.Bytes, b, mode)
			}
		}
		// What would be written now: only raw and lossless give exact chunks.
		require.Equal(t, true, tier.Has(keys.Key{1}, 0))
		require.Equal(t, mode.Quality() >= 2, tier.Has(keys.Key{2}, 0), "%v", mode)
		require.False(t, tier.Has(keys.Key{2}, 1), "%v", mode)
		require.True(t, tier.Has(keys.Key{2}, 2), "%v", mode)
	}
	for mode := Raw; mode < L3; mode++ {
		require.Greater(t, size[mode], size[mode+1], "%v", mode)
	}
	st := pool.Stats()
	require.Equal(t, uint64(5*2*len(layout)), st.Encoded)
	require.Equal(t, st.Encoded, st.Decoded)
	require.Equal(t, st.EncodedBytes, st.DecodedBytes)
	require.Equal(t, st.EncodedStored, st.DecodedStored)
	require.Less(t, st.EncodedStored, st.EncodedBytes)
	require.Zero(t, st.Waiting)
}

// within half a step and the type's rounding, in units of the rms of all: the
// bound is loose, a test of the codec itself has the exact one.
func within(t *testing.T, want, got []byte, mode Mode) {
	t.Helper()
	level, _ := mode.lossy()
	rms, worst := 0.0, 0.0
	n := len(want) / 2
	for i := range n {
		w, g := number(want[2*i:]), number(got[2*i:])
		rms += w * w / float64(n)
		worst = max(worst, math.Abs(w-g)-math.Abs(w)/128)
	}
	require.Less(t, worst, 0.5*0.09*math.Pow(3, float64(level))*math.Sqrt(rms)*3, "%v", mode)
	require.NotEqual(t, want, got, "%v: nothing was lost", mode)
}

func number(b []byte) float64 {
	return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
}

// Where nothing shrinks, parts are raw, and of the quality of their chunk: parts
// of different quality never meet.
func TestWhatDoesNotShrink(t *testing.T) {
	d := small()
	layout := layoutOf(d)
	under := newMemory()
	pool := newPool(t, Options{})
	tier := pool.Stage(d, layout, L2).Over(under)
	list := chunkOf(t, 1, layout, 0)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(list[0].Bytes)
	p, err := tiertest.Raw(*list[0].Part, layout[0], list[0].Bytes)
	require.NoError(t, err)
	list[0].Part = p
	put(t, tier, list)
	require.True(t, under.parts[list[0].Part.ID].Part.Raw())
	require.True(t, under.parts[list[1].Part.ID].Part.Coded())
	for _, p := range list {
		got, b, err := get(t, tier, p.Part.ID, len(p.Bytes))
		require.NoError(t, err)
		require.Equal(t, L2.Quality(), got.Quality)
		require.NoError(t, part.Verify(&got, b))
	}
	require.Equal(t, uint64(1), pool.Stats().Kept)
	require.Equal(t, uint8(0), list[0].Part.Quality, "the caller's descriptor was changed")
}

// Damage that the tier below did not see, since its checksums are right, is
// found and costs the chunk; what is only unknown stays.
func TestDamage(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 2})
	// seal makes the checksums fit what was done.
	seal := func(p *storage.PartBytes) {
		h, err := codec.HeaderSize(p.Bytes)
		if err == nil && int(h) <= len(p.Bytes) {
			p.Part.Table[part.CodecHeader] = binary.LittleEndian.Uint64(p.Bytes[h-8:])
		}
		p.Part.StoredLength = uint32(len(p.Bytes))
		_ = part.Seal(p.Part)
	}
	for _, c := range []struct {
		name   string
		change func(p *storage.PartBytes)
		want   fault.Kind
	}{
		{"a stream", func(p *storage.PartBytes) { p.Bytes[len(p.Bytes)-40] ^= 1 }, fault.Corrupt},
		{"the header", func(p *storage.PartBytes) { p.Bytes[20] ^= 1 }, fault.Corrupt},
		{"cut off", func(p *storage.PartBytes) { p.Bytes = p.Bytes[:len(p.Bytes)-16] }, fault.Corrupt},
		{"longer", func(p *storage.PartBytes) { p.Bytes = append(p.Bytes, make([]byte, 16)...) }, fault.Corrupt},
		{"the header of another", func(p *storage.PartBytes) { p.Part.Table[part.CodecHeader]++; _ = part.Seal(p.Part) }, fault.Corrupt},
		{"of other bytes", func(p *storage.PartBytes) { p.Part.Table[part.CodecOrigin]++; _ = part.Seal(p.Part) }, fault.Corrupt},
		{"another raw length", func(p *storage.PartBytes) { p.Part.RawLength += 64 }, fault.Corrupt},
		{"another version", func(p *storage.PartBytes) { p.Part.EncodingVersion++ }, fault.Miss},
		{"another version inside", func(p *storage.PartBytes) { p.Bytes[4]++ }, fault.Miss},
		{"another format inside", func(p *storage.PartBytes) { p.Bytes[0]++ }, fault.Miss},
	} {
		under := newMemory()
		tier := pool.Stage(d, layout, Lossless).Over(under)
		list := chunkOf(t, 1, layout, 0)
		put(t, tier, list)
		p := under.parts[list[0].Part.ID]
		before := pool.Stats()
		origin := p.Part.Checksum
		c.change(&p)
		if p.Part.Checksum == origin {
			seal(&p)
		}
		under.parts[list[0].Part.ID] = p
		got, b, err := get(t, tier, list[0].Part.ID, len(list[0].Bytes))
		k, _ := fault.KindOf(err)
		require.Equal(t, c.want, k, "%s: %v", c.name, err)
		require.Empty(t, b)
		_ = got
		require.Equal(t, c.want == fault.Corrupt, len(under.deleted) == 1, c.name)
		require.Equal(t, uint64(len(under.deleted)), pool.Stats().Corrupt-before.Corrupt, c.name)
		require.Equal(t, uint64(1), pool.Stats().Corrupt+pool.Stats().Unknown-before.Corrupt-before.Unknown, c.name)
		_, _, err = get(t, tier, list[1].Part.ID, len(list[1].Bytes))
		require.Equal(t, c.want == fault.Miss, err == nil, c.name)
	}
}

// An object of fewer layers than its part, in a descriptor that is sound, is
// Corrupt, however many layers are decoded at a time.
func TestFewerLayers(t *testing.T) {
	d := large()
	d.Groups[1].Layers = []uint32{3, 5, 6} // one unit each: two layers at a time
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 2})
	for i := range layout {
		under := newMemory()
		tier := pool.Stage(d, layout, Lossless).Over(under)
		list := chunkOf(t, 1, layout, 0)
		put(t, tier, list)
		p := under.parts[list[i].Part.ID]
		shape := *shapesOf(d)[placeOf(p.Part.ID)]
		shape.Layers = 1
		object, err := pool.encode(t.Context(), list[i].Bytes[:shape.RawSize()], &shape, Lossless)
		require.NoError(t, err)
		origin := *list[i].Part
		require.NoError(t, describe(&origin, object, Lossless))
		require.NoError(t, part.Seal(&origin))
		under.parts[list[i].Part.ID] = storage.PartBytes{Part: &origin, Bytes: object}
		_, b, err := get(t, tier, list[i].Part.ID, len(list[i].Bytes))
		require.ErrorIs(t, err, fault.Corrupt)
		require.Empty(t, b)
		require.Len(t, under.deleted, 1)
	}
}

// A disk that hangs does not keep the load that found damage, but for a while;
// that whoever asked has gone is no reason to leave the chunk.
func TestRepairEnds(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	synctest.Test(t, func(t *testing.T) {
		under := newMemory()
		pool := newPool(t, Options{Workers: 2})
		tier := pool.Stage(d, layout, Lossless).Over(under)
		list := chunkOf(t, 1, layout, 0)
		put(t, tier, list)
		stored := under.parts[list[0].Part.ID]
		stored.Part.Table[part.CodecOrigin]++
		require.NoError(t, part.Seal(stored.Part))
		load, gone := context.WithCancel(t.Context())
		under.beforeDelete = func(ctx context.Context) error {
			gone()
			require.NoError(t, ctx.Err())
			<-ctx.Done() // fake time goes on: there is an end, or the test fails for good
			return ctx.Err()
		}
		var got part.Descriptor
		b := make([]byte, len(list[0].Bytes))
		_, err := tier.Get(load, list[0].Part.ID, &got, b)
		k, _ := fault.KindOf(err)
		require.Equal(t, fault.Corrupt, k)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, make([]byte, len(b)), b)
	})
}

// What a stage expects comes of its own namespace's parts in its own mode, those
// that are kept raw included.
func TestExpected(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{})
	const raw = 1 << 30
	for _, mode := range []Mode{L3, Lossless, Raw} {
		stage := pool.Stage(d, layout, mode)
		require.Equal(t, int64(raw), stage.Expected(raw), "%v: before the first", mode)
		under := newMemory()
		list := chunkOf(t, 1, layout, 0)
		_, _ = rand.NewChaCha8([32]byte{9}).Read(list[0].Bytes)
		p, err := tiertest.Raw(*list[0].Part, layout[0], list[0].Bytes)
		require.NoError(t, err)
		list[0].Part = p
		put(t, stage.Over(under), list)
		stored := int64(0)
		for _, p := range under.parts {
			stored += int64(len(p.Bytes))
		}
		require.InDelta(t, float64(stored)/float64(layout.Bytes()), float64(stage.Expected(raw))/raw, 1e-6, "%v", mode)
	}
}

// An object that lost something cannot pass for exact, whatever its descriptor
// says.
func TestQualityIsTheObjects(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	under := newMemory()
	tier := newPool(t, Options{}).Stage(d, layout, L2).Over(under)
	list := chunkOf(t, 1, layout, 0)
	put(t, tier, list)
	for _, p := range list {
		under.parts[p.Part.ID].Part.Quality = L1.Quality()
		require.NoError(t, part.Seal(under.parts[p.Part.ID].Part))
	}
	_, _, err := get(t, tier, list[0].Part.ID, len(list[0].Bytes))
	require.ErrorIs(t, err, fault.Corrupt)
	require.Len(t, under.deleted, 1)
}

// Damaged bytes are not coded: their checksums would be right again.
func TestRefused(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	under := newMemory()
	tier := newPool(t, Options{}).Stage(d, layout, Lossless).Over(under)
	list := chunkOf(t, 1, layout, 0)
	list[1].Bytes[7] ^= 1
	outs, err := tier.PutParts(t.Context(), list)
	require.ErrorIs(t, err, fault.Corrupt)
	require.Equal(t, []storage.Outcome{storage.Rejected, storage.Rejected, storage.Rejected}, outs)
	require.Empty(t, under.batches)
}

// A coded part that comes as one, from another tier, stays what it is.
func TestCodedPassesThrough(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{})
	first, second := newMemory(), newMemory()
	put(t, pool.Stage(d, layout, L1).Over(first), chunkOf(t, 1, layout, 0))
	var list []storage.PartBytes
	for _, p := range first.parts {
		list = append(list, p)
	}
	put(t, pool.Stage(d, layout, L3).Over(second), list)
	for id, p := range first.parts {
		require.Equal(t, p, second.parts[id])
	}
}

func TestCancelled(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 1})
	under := newMemory()
	tier := pool.Stage(d, layout, Lossless).Over(under)
	list := chunkOf(t, 1, layout, 0)
	put(t, tier, list)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got part.Descriptor
	b := make([]byte, len(list[0].Bytes))
	_, err := tier.Get(ctx, list[0].Part.ID, &got, b)
	require.ErrorIs(t, err, fault.Unavailable)
	require.Equal(t, make([]byte, len(b)), b, "something of the object was left")
	require.Equal(t, uint64(1), pool.Stats().Stopped)
	_, err = tier.PutParts(ctx, list)
	require.ErrorIs(t, err, fault.Unavailable)
	require.Equal(t, uint64(1+len(list)), pool.Stats().Stopped, "each part is one that was not coded")

	// One that waits for its turn, since all workers are busy.
	require.NoError(t, pool.turns.Acquire(t.Context(), 1))
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := tier.Get(ctx, list[0].Part.ID, &got, b)
		done <- err
	}()
	go func() {
		_, err := tier.PutParts(ctx, list)
		done <- err
	}()
	for pool.Stats().Waiting < 2 {
		require.Empty(t, done)
	}
	cancel()
	for range 2 {
		require.ErrorIs(t, <-done, fault.Unavailable)
	}
	pool.turns.Release(1)
	require.Empty(t, under.deleted)
	_, _, err = get(t, tier, list[0].Part.ID, len(b))
	require.NoError(t, err, "the pool is not usable after cancelled calls")
	require.Equal(t, uint64(2*(1+len(list))), pool.Stats().Stopped)
	require.Zero(t, pool.Stats().EncodeFailed)
	require.Zero(t, pool.Stats().Waiting)
}

// Corrupt are parts whose chunk is dropped, and no others.
func TestFailuresByKind(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Stats
	}{
		{fault.New(fault.Corrupt, "test", "damaged"), Stats{Corrupt: 1}},
		{fault.New(fault.Miss, "test", "unknown"), Stats{Unknown: 1}},
		{context.Canceled, Stats{Stopped: 1}},
		{fault.New(fault.Invalid, "test", "wrong"), Stats{DecodeFailed: 1}},
		{errors.New("anything"), Stats{DecodeFailed: 1}},
	} {
		var st Stats
		st.notDecoded(c.err)
		require.Equal(t, c.want, st, "%v", c.err)
	}
}

// ending is a context that ends after it was asked so often.
type ending struct {
	context.Context
	left *atomic.Int64
}

func (e ending) Err() error {
	if e.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A load that is given up ends between two layers, wherever it is, and leaves
// nothing of the part; the chunk stays.
func TestCancelledBetweenLayers(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 1})
	under := newMemory()
	tier := pool.Stage(d, layout, L2).Over(under)
	list := chunkOf(t, 1, layout, 0)
	put(t, tier, list)
	for n := range int64(layout[0].Layers) {
		ctx := ending{t.Context(), &atomic.Int64{}}
		ctx.left.Store(n)
		var got part.Descriptor
		b := make([]byte, len(list[0].Bytes))
		_, err := tier.Get(ctx, list[0].Part.ID, &got, b)
		require.ErrorIs(t, err, fault.Unavailable, "%d", n)
		require.Equal(t, make([]byte, len(b)), b)
	}
	require.Empty(t, under.deleted)
	require.Equal(t, uint64(layout[0].Layers), pool.Stats().Stopped)
	_, _, err := get(t, tier, list[0].Part.ID, len(list[0].Bytes))
	require.NoError(t, err)
}
