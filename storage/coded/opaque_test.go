package coded

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// unknown are namespaces that the codec cannot look into, and the type as which it
// codes their parts.
var unknown = []struct {
	name   string
	dtype  codec.DType
	change func(d *namespace.Descriptor)
}{
	{"opaque bfloat16", codec.BF16, func(d *namespace.Descriptor) { asBlocks(d, 4096) }},
	{"opaque float16", codec.U8, func(d *namespace.Descriptor) { asBlocks(d, 4096); d.KVDtype = "float16" }},
	{"opaque scales", codec.U8, func(d *namespace.Descriptor) {
		asBlocks(d, 16*264)
		d.KVDtype, d.Quantization = "fp8", "per_token_head"
	}},
	{"padded blocks", codec.U8, func(d *namespace.Descriptor) { asBlocks(d, 4098); d.KVDtype = "uint8" }},
	{"a state", codec.U8, func(d *namespace.Descriptor) { asBlocks(d, 4096); d.Groups[0].Kind = namespace.KindState }},
	{"another type", codec.U8, func(d *namespace.Descriptor) { d.KVDtype = "float8_e4m3fnuz" }},
	{"too wide", codec.BF16, func(d *namespace.Descriptor) { d.Groups[1].Dk = codec.MaxDims + 2 }},
}

// asBlocks makes the layout opaque.
func asBlocks(d *namespace.Descriptor, size uint32) {
	d.Layout = namespace.Layout{Name: namespace.LayoutOpaque, Engine: "e", Backend: "b", ISA: "i"}
	for i := range d.Groups {
		d.Groups[i].BlockTokens, d.Groups[i].BlockBytes = 16, size
	}
}

// What the codec cannot look into is coded without loss in every mode but raw, and
// stays exact.
func TestOpaque(t *testing.T) {
	for _, c := range unknown {
		d := large()
		c.change(d)
		layout := layoutOf(d)
		pool := newPool(t, Options{Workers: 2})
		require.Equal(t, c.dtype, shapesOf(d)[place{}].Fields[0].DType, c.name)
		for _, mode := range []Mode{Raw, Lossless, L0, L3} {
			under := newMemory()
			stage := pool.Stage(d, layout, mode)
			tier := stage.Over(under)
			require.Equal(t, min(mode, Lossless), stage.Mode(), c.name)
			require.Equal(t, stage.Mode(), Effective(d, mode), c.name)
			exact, lossy := chunkOf(t, 1, layout, 0), chunkOf(t, 2, layout, 2)
			put(t, tier, exact)
			put(t, tier, lossy)
			for _, p := range append(exact, lossy...) {
				stored := under.parts[p.Part.ID]
				require.Equal(t, mode != Raw, stored.Part.Coded(), "%s %v", c.name, mode)
				require.Equal(t, p.Part.Quality, stored.Part.Quality)
				if mode != Raw {
					require.Less(t, len(stored.Bytes), len(p.Bytes)*9/10, c.name)
					require.Equal(t, p.Part.Checksum, stored.Part.Table[part.CodecOrigin])
				}
				got, b, err := get(t, tier, p.Part.ID, len(p.Bytes)+5)
				require.NoError(t, err)
				require.Equal(t, *p.Part, got, c.name)
				require.True(t, bytes.Equal(p.Bytes, b), c.name)
			}
			require.True(t, tier.Has(keys.Key{1}, 0), "%s %v: it is as good as it would become", c.name, mode)
		}
	}
}

// Noise is written raw, and exact.
func TestOpaqueNoise(t *testing.T) {
	d := large()
	asBlocks(d, 4096)
	d.KVDtype = "uint8"
	layout := layoutOf(d)
	under := newMemory()
	pool := newPool(t, Options{})
	tier := pool.Stage(d, layout, L2).Over(under)
	list := chunkOf(t, 1, layout, 0)
	for i := range list {
		_, _ = rand.NewChaCha8([32]byte{9, byte(i)}).Read(list[i].Bytes)
		p, err := tiertest.Raw(*list[i].Part, layout[i], list[i].Bytes)
		require.NoError(t, err)
		list[i].Part = p
	}
	put(t, tier, list)
	for _, p := range list {
		require.True(t, under.parts[p.Part.ID].Part.Raw())
		got, b, err := get(t, tier, p.Part.ID, len(p.Bytes))
		require.NoError(t, err)
		require.Equal(t, *p.Part, got)
		require.True(t, bytes.Equal(p.Bytes, b))
	}
	require.Equal(t, uint64(len(list)), pool.Stats().Kept)
}

// Frames that decode to other bytes, behind sums that are right, are found by the sum
// of what they were made of; what is no frame, by the codec. Both cost the chunk.
func TestOpaqueDamage(t *testing.T) {
	d := large()
	asBlocks(d, 4096)
	d.KVDtype = "float16"
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 2})
	shape := shapesOf(d)[placeOf(part.ID{})]
	forge := func(list []storage.PartBytes, raw []byte, change func([]byte)) storage.PartBytes {
		object, err := pool.encode(t.Context(), raw, shape, Lossless)
		require.NoError(t, err)
		change(object)
		p := *list[0].Part
		require.NoError(t, describe(&p, object, Lossless))
		require.NoError(t, part.Seal(&p))
		return storage.PartBytes{Part: &p, Bytes: object}
	}
	other := chunkOf(t, 3, layout, 0)[0].Bytes
	for name, c := range map[string]struct {
		raw    []byte
		change func([]byte)
	}{
		"other bytes": {other, func([]byte) {}},
		"no frame":    {nil, func(b []byte) { b[len(b)/2] ^= 1 }},
	} {
		under := newMemory()
		tier := pool.Stage(d, layout, Lossless).Over(under)
		list := chunkOf(t, 1, layout, 0)
		put(t, tier, list)
		if c.raw == nil {
			c.raw = list[0].Bytes
		}
		under.parts[list[0].Part.ID] = forge(list, c.raw, c.change)
		_, b, err := get(t, tier, list[0].Part.ID, len(list[0].Bytes))
		require.ErrorIs(t, err, fault.Corrupt, name)
		require.Empty(t, b, name)
		require.Len(t, under.deleted, 1, name)
	}
}

// Rows of any length: all bytes of a layer, none twice.
func TestRowsOf(t *testing.T) {
	for _, c := range []struct{ n, tokens, rows, dims int }{
		{256 * 2048, 256, 256, 2048},
		{256 * 8192, 256, 256, 8192},
		{256 * 16384, 256, 512, 8192},
		{256 * 12288, 256, 512, 6144},
		{256 * 3 * 8193, 256, 768, 8193 * 3 * 256 / 768}, // not a row of a token, but of a third
		{1000, 256, 1, 1000},
		{16410, 256, 3, 5470},
		{10007, 64, 10007, 1},
		{65537, 64, 0, 0},
		{1 << 29, 64, 1 << 16, 1 << 13},
		{1<<29 + 1<<13, 64, 0, 0},
	} {
		rows, dims := rowsOf(c.n, c.tokens)
		if c.dims > codec.MaxDims {
			require.Equal(t, c.n, rows*dims)
			require.LessOrEqual(t, dims, codec.MaxDims)
			continue
		}
		require.Equal(t, [2]int{c.rows, c.dims}, [2]int{rows, dims}, "%d", c.n)
	}
	d := small()
	asBlocks(d, 65537)
	d.ChunkTokens, d.KVDtype = 16, "uint8"
	require.Nil(t, shapesOf(d))
	require.Equal(t, Raw, Effective(d, L1))
	require.Equal(t, Raw, Effective(&namespace.Descriptor{}, L1))
}
