package codec

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

// elements fills b with numbers of n bytes, little-endian, that are noise but for
// the last byte, which takes few values.
func elements(b []byte, n int, seed uint64) {
	g := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(g.Uint32())
		if i%n == n-1 {
			b[i] = byte(60 + min(g.ExpFloat64()*1.5, 9))
		}
	}
}

func opaqueShape(layers, tokens, dims int) *Shape {
	return &Shape{Layers: layers, Heads: 1, Tokens: tokens, Fields: []Field{{Opaque, U8, dims}}}
}

// streamOf is the base stream of a unit.
func streamOf(tb testing.TB, object []byte, unit int) (stream []byte, mode uint8) {
	tb.Helper()
	h, err := Parse(object)
	require.NoError(tb, err)
	return object[h.starts[unit]:][:h.lengths[unit]], h.modes[unit]
}

// withStream is object, of a single unit, with another stream of mode 2.
func withStream(tb testing.TB, object, stream []byte) []byte {
	tb.Helper()
	h, err := Parse(object)
	require.NoError(tb, err)
	body := append(append([]byte(nil), stream...), make([]byte, padded(int64(len(stream)))-int64(len(stream)))...)
	h.modes[0], h.lengths[0], h.sums[0] = baseLossless, uint32(len(stream)), crc64nvme.Checksum(body)
	return append(h.append(nil, h.appendTables(nil)), body...)
}

func TestBytesShrink(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		fill  func([]byte)
		ratio float64
	}{
		{"bytes", 1, func(b []byte) { elements(b, 1, 1) }, .45},
		{"elements of two", 2, func(b []byte) { elements(b, 2, 1) }, .72},
		{"elements of four", 4, func(b []byte) { elements(b, 4, 1) }, .86},
		{"text", 1, func(b []byte) {
			for i := range b {
				b[i] = "the quick brown fox jumps over the lazy dog "[i%44]
			}
		}, .05},
	} {
		s := opaqueShape(2, 512, 1024)
		raw := make([]byte, s.RawSize())
		c.fill(raw)
		object := encode(t, raw, s, params(s, Lossless, 0, 0, 1))
		require.Less(t, float64(len(object))/float64(len(raw)), c.ratio, c.name)
		stream, mode := streamOf(t, object, 1)
		require.Equal(t, baseLossless, mode, c.name)
		require.Equal(t, byte(c.width), stream[0], c.name)
		for level := range 4 {
			require.True(t, bytes.Equal(raw, decode(t, object, s, level)), c.name)
		}
		require.Greater(t, len(encode(t, raw, s, params(s, Raw, 0, 0, 1))), len(raw))
	}
}

// Noise, and what is not smaller by a sixteenth, is raw; equal rows are one.
func TestBytesThatDoNotShrink(t *testing.T) {
	s := opaqueShape(1, 64, 512)
	raw := make([]byte, s.RawSize())
	g := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		bits int // thousandths of noise in a byte, about
		mode uint8
	}{{"noise", 8000, baseRaw}, {"hardly", 7700, baseRaw}, {"enough", 6000, baseLossless}, {"nothing", 0, baseRepeat}} {
		for i := range raw {
			raw[i] = byte(g.IntN(1 << 8))
			if g.IntN(1000) >= c.bits/8 {
				raw[i] = 0
			}
		}
		if c.bits == 0 {
			clear(raw)
		}
		object := encode(t, raw, s, params(s, Lossless, 0, 0, 1))
		_, mode := streamOf(t, object, 0)
		require.Equal(t, c.mode, mode, c.name)
		require.True(t, bytes.Equal(raw, decode(t, object, s, 0)), c.name)
	}
}

// Sizes that no width divides, fields beside others, many heads.
func TestBytesOfManyShapes(t *testing.T) {
	for _, s := range []*Shape{
		opaqueShape(1, 1, 1), opaqueShape(1, 1, 31), opaqueShape(3, 7, 11), opaqueShape(1, 2, 8192), opaqueShape(1, 300, 1000),
		opaqueShape(1, 1<<16, 150), // a frame larger than its window, of many blocks
		{Layers: 2, Heads: 3, Tokens: 40, Fields: []Field{{Opaque, U8, 50}, {K, BF16, 16}, {Opaque, U8, 6}}},
		{Layers: 2, Heads: 2, Tokens: 64, Fields: []Field{{K, BF16, 16}, {Opaque, BF16, 40}, {Opaque, F16, 24}}},
	} {
		for n := range 5 {
			raw := make([]byte, s.RawSize())
			if n > 0 {
				elements(raw, n, uint64(n))
			}
			object := encode(t, raw, s, params(s, Lossless, 0, 0, 1))
			require.True(t, bytes.Equal(raw, decode(t, object, s, 0)), "%+v", s)
			require.Equal(t, object, encode(t, raw, s, params(s, Lossless, 0, 0, 1)))
		}
	}
}

// An opaque field of elements is coded as if it were known what they are.
func TestOpaqueElements(t *testing.T) {
	known := &Shape{Layers: 2, Heads: 1, Tokens: 256, Fields: []Field{{K, BF16, 128}}}
	opaque := &Shape{Layers: 2, Heads: 1, Tokens: 256, Fields: []Field{{Opaque, BF16, 128}}}
	raw := kv(known, 1)
	a, b := encode(t, raw, known, params(known, Lossless, 0, 0, 1)), encode(t, raw, opaque, params(opaque, Lossless, 0, 0, 1))
	require.Len(t, b, len(a))
	require.Less(t, float64(len(b)), .72*float64(len(raw)))
	require.True(t, bytes.Equal(raw, decode(t, b, opaque, 0)))
	h, err := Parse(b)
	require.NoError(t, err)
	_, lossy := h.Lossy()
	require.False(t, lossy)
	p := params(opaque, Lossless, 0, 0, 1)
	p.Fields[0].Mode = Plain
	_, err = NewEncoder(newCoder(t)).Encode(nil, raw, opaque, p)
	require.ErrorIs(t, err, fault.Invalid)
	// The bytes of elements are better than nothing, but worse.
	plain := opaqueShape(2, 256, 256)
	c := encode(t, raw, plain, params(plain, Lossless, 0, 0, 1))
	require.Less(t, len(b), len(c))
	require.Less(t, len(c), len(raw)*9/10)
}

// What an encoder has coded before changes nothing.
func TestBytesAreDeterministic(t *testing.T) {
	s := opaqueShape(2, 300, 1000)
	p := params(s, Lossless, 0, 0, 1)
	e := NewEncoder(newCoder(t))
	var first [4][]byte
	for round := range 3 {
		for i := range first {
			raw := make([]byte, s.RawSize())
			elements(raw, 1+i, uint64(i))
			object, err := e.Encode(nil, raw, s, p)
			require.NoError(t, err)
			if round == 0 {
				first[i] = object
			}
			require.True(t, bytes.Equal(first[i], object))
			require.True(t, bytes.Equal(object, encode(t, raw, s, p)))
		}
	}
}

// frameOf is what the library makes of b with other options than ours.
func frameOf(tb testing.TB, b []byte, o ...zstd.EOption) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)}, o...)...)
	require.NoError(tb, err)
	return e.EncodeAll(b, nil)
}

// bytesObject is an object of one unit, what it was made of, and its shape.
func bytesObject(tb testing.TB) (s *Shape, raw, object []byte) {
	tb.Helper()
	s = opaqueShape(1, 600, 500)
	raw = make([]byte, s.RawSize())
	elements(raw, 2, 1)
	return s, raw, encode(tb, raw, s, params(s, Lossless, 0, 0, 1))
}

// A reader takes every frame that the format allows, whoever made it.
func TestFramesOfOthers(t *testing.T) {
	s, raw, object := bytesObject(t)
	r := NewReader(newCoder(t))
	out := make([]byte, len(raw))
	for _, o := range [][]zstd.EOption{
		{zstd.WithEncoderLevel(zstd.SpeedBestCompression)},
		{zstd.WithWindowSize(1 << 10)},
		{zstd.WithWindowSize(maxWindow), zstd.WithSingleSegment(false)},
		{zstd.WithSingleSegment(true)},
		{zstd.WithNoEntropyCompression(true)},
	} {
		clear(out)
		require.NoError(t, r.Decode(out, withStream(t, object, append([]byte{1}, frameOf(t, raw, o...)...)), s, 0))
		require.True(t, bytes.Equal(raw, out))
	}
}

// Streams with right checksums that no encoder makes, or that ask for memory.
func TestForgedFrames(t *testing.T) {
	s, raw, object := bytesObject(t)
	n := len(raw)
	le := binary.LittleEndian
	good := frameOf(t, raw, zstd.WithSingleSegment(true))
	stream, _ := streamOf(t, object, 0)
	require.Equal(t, byte(2), stream[0])
	skip := le.AppendUint32(le.AppendUint32(nil, 0x184d2a50), 4)
	skip = append(skip, 1, 2, 3, 4)
	// header is that of a frame: single segment, the content's size in four bytes.
	header := func(size int) []byte { return le.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, uint32(size)) }
	block := func(kind, size int, last bool) []byte {
		v := kind<<1 | size<<3
		if last {
			v |= 1
		}
		return []byte{byte(v), byte(v >> 8), byte(v >> 16)}
	}
	join := func(list ...[]byte) []byte { return append([]byte{1}, bytes.Join(list, nil)...) }
	repeated := func(size int) (b []byte) { // blocks of one byte that give size
		for ; size > maxBlock; size -= maxBlock {
			b = append(append(b, block(1, maxBlock, false)...), 7)
		}
		return append(append(b, block(1, size, true)...), 7)
	}
	out := make([]byte, n)
	r := NewReader(newCoder(t))
	require.NoError(t, r.Decode(out, object, s, 0))
	require.NoError(t, r.Decode(out, withStream(t, object, join(good)), s, 0))
	require.NoError(t, r.Decode(out, withStream(t, object, join(header(n), repeated(n))), s, 0), "the cases below are wrong for what they say")
	require.Equal(t, bytes.Repeat([]byte{7}, n), out)
	for name, stream := range map[string][]byte{
		"nothing":                   {},
		"no frame":                  {1},
		"width 0":                   append([]byte{0}, good...),
		"width 3":                   append([]byte{3}, good...),
		"one plane of two":          append([]byte{2}, frameOf(t, raw[:n/2])...),
		"planes of another size":    append([]byte{2}, append(frameOf(t, raw[:n/2+1]), frameOf(t, raw[n/2+1:])...)...),
		"more planes":               append(stream[:len(stream):len(stream)], frameOf(t, raw[:n/2])...),
		"two frames":                join(good, good),
		"halves":                    join(frameOf(t, raw[:n/2]), frameOf(t, raw[n/2:])),
		"skippable first":           join(skip, good),
		"skippable last":            join(good, skip),
		"skippable only":            join(skip),
		"a byte behind":             join(good, []byte{0}),
		"checksum":                  join(frameOf(t, raw, zstd.WithEncoderCRC(true))),
		"dictionary":                join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa1, 9}, good[5:]),
		"reserved bit":              join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa8}, good[5:]),
		"larger":                    join(frameOf(t, append(raw[:n:n], 0))),
		"smaller":                   join(frameOf(t, raw[:n-1])),
		"says it is larger":         join(header(1<<30), good[9:]),
		"gives less than it says":   join(header(n), repeated(n-1)),
		"gives more than it says":   join(header(n), repeated(n+1)),
		"a bomb":                    join(header(n), repeated(1<<27)),
		"a bomb that says so":       join(header(1<<27), repeated(1<<27)),
		"without its size":          join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x38}, repeated(n)),
		"window of 16 MiB":          join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 14 << 3}, header(n)[5:], repeated(n)),
		"window of 3.75 TiB":        join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xff}, header(n)[5:], repeated(n)),
		"a block larger than 128 K": join(header(n), block(1, n, true), []byte{7}),
		"a raw block that ends":     join(header(n), block(0, n, true), raw[:100]),
		"reserved kind of block":    join(header(n), block(3, 10, true), raw[:10]),
		"an empty compressed block": join(header(n), block(2, 0, true)),
		"no last block":             join(header(n), block(1, n/2, false), []byte{7}),
		"literals that end":         join(header(n), block(2, 3, true), []byte{0xfc, 0xff, 0xff}),
	} {
		forged := withStream(t, object, stream)
		var err error
		// The library pools tables, which the garbage collector may take.
		allocates(t, 128<<10, name, func() { err = r.Decode(out, forged, s, 0) })
		require.ErrorIs(t, err, fault.Corrupt, name)
	}
	require.NoError(t, r.Decode(out, object, s, 0), "the reader is as good as before")
	require.True(t, bytes.Equal(raw, out))
}

func TestDamageOfFramesIsFound(t *testing.T) {
	s, raw, object := bytesObject(t)
	r := NewReader(newCoder(t))
	out := make([]byte, len(raw))
	g := rand.New(rand.NewPCG(3, 1))
	for range 400 {
		bit := g.IntN(8 * len(object))
		object[bit/8] ^= 1 << (bit % 8)
		require.Truef(t, refused(r.Decode(out, object, s, 0)), "bit %d", bit)
		object[bit/8] ^= 1 << (bit % 8)
	}
	for n := 0; n < len(object); n += 997 {
		require.ErrorIs(t, r.Decode(out, object[:n:n], s, 0), fault.Corrupt)
	}
	require.NoError(t, r.Decode(out, object, s, 0))
	// Behind right checksums: refused, or other bytes, and no more memory.
	stream, _ := streamOf(t, object, 0)
	wrong := 0
	for range 400 {
		forged := append([]byte(nil), stream...)
		for range 1 + g.IntN(3) {
			forged[g.IntN(1+g.IntN(len(forged)))] ^= byte(1 + g.IntN(255))
		}
		forged = withStream(t, object, forged[:len(forged)-g.IntN(2)*g.IntN(len(forged))])
		var err error
		allocates(t, uint64(2*len(raw)), "decode", func() { err = r.Decode(out, forged, s, 0) })
		if err != nil {
			require.Truef(t, refused(err), "%v", err)
			wrong++
		}
	}
	require.Greater(t, wrong, 100)
}

func FuzzFrames(f *testing.F) {
	s := opaqueShape(1, 16, 32)
	raw := make([]byte, s.RawSize())
	for i := range raw { // literals and matches, in few bytes
		raw[i] = byte(i%19*i%7 + i/200)
	}
	object := encode(f, raw, s, params(s, Lossless, 0, 0, 1))
	stream, mode := streamOf(f, object, 0)
	require.Equal(f, baseLossless, mode)
	f.Add(stream)
	f.Add(append([]byte{1}, frameOf(f, raw)...))
	f.Add(append([]byte{1}, frameOf(f, raw, zstd.WithSingleSegment(false))...))
	f.Add(append(append([]byte{2}, frameOf(f, raw[:256])...), frameOf(f, raw[256:])...))
	r := NewReader(newCoder(f))
	out := make([]byte, len(raw))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 1<<20 {
			return
		}
		if err := r.Decode(out, withStream(t, object, stream), s, 0); err != nil {
			require.Truef(t, refused(err), "%v", err)
		}
		require.NoError(t, r.Decode(out, object, s, 0))
		require.True(t, bytes.Equal(raw, out))
	})
}
