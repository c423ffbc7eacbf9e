package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// pair is an Encoder and a Reader of one kernel.
type pair struct {
	*Encoder
	*Reader
	kernel rans.Kernel
}

// everyKernel are those that the CPU runs, the reference last.
func everyKernel(tb testing.TB) (list []pair) {
	tb.Helper()
	for _, k := range rans.Kernels() {
		c, err := rans.New(rans.Options{Kernel: k})
		require.NoError(tb, err)
		list = append(list, pair{NewEncoder(c), NewReader(c), k})
	}
	return list
}

// roundTrip encodes raw with every kernel and decodes it at every level: all make
// the same, what is exact comes back, and nothing becomes longer than what was there
// with a header, padding and what tables take.
func roundTrip(t testing.TB, all []pair, raw []byte, s *Shape, p *Params) {
	t.Helper()
	var object []byte
	var levels [L3 + 1][]byte
	for i, c := range all {
		got, err := c.Encode(nil, raw, s, p)
		require.NoError(t, err)
		if i == 0 {
			object = got
		}
		require.Truef(t, bytes.Equal(object, got), "the object of %v is another one", c.kernel)
		for level := range levels {
			out := make([]byte, len(raw))
			require.NoError(t, c.Decode(out, object, s, level))
			if i == 0 {
				levels[level] = out
			}
			require.Truef(t, bytes.Equal(levels[level], out), "level %d of %v is another one", level, c.kernel)
		}
	}
	h, err := Parse(object)
	require.NoError(t, err)
	require.LessOrEqual(t, h.ObjectSize-h.Size, int64(len(raw)+len(h.lengths)*(align-1)), "more than the rows as they are")
	for i := range s.Units() {
		u := s.unit(i)
		finite := true
		for k := range u.tokens {
			finite = finite && u.dtype.finite(u.row(raw, k))
		}
		if p.Fields[u.field].Mode == Plain && h.modes[i] == basePlain {
			require.True(t, finite, "unit %d was quantized and has what is no number", i)
			continue
		}
		for level := range levels {
			for k := range u.tokens {
				require.Truef(t, bytes.Equal(u.row(raw, k), u.row(levels[level], k)), "unit %d is exact", i)
			}
		}
	}
	for i := range s.Units() {
		if h.modes[i] == basePlain {
			checkFinite(t, h, levels[:], i)
		}
	}
}

// checkFinite: no number becomes an infinity.
func checkFinite(t testing.TB, h *Header, levels [][]byte, index int) {
	t.Helper()
	u := h.unit(index)
	for _, out := range levels {
		for k := range u.tokens {
			require.Truef(t, u.dtype.finite(u.row(out, k)), "unit %d token %d", index, k)
		}
	}
}

// FuzzInput: any bytes are KV of any shape. Every kernel codes them, all alike, in
// no more bytes; NaN and infinities stay what they are.
func FuzzInput(f *testing.F) {
	f.Add([]byte{0x80, 0x3f}, uint8(1), uint8(0), uint8(5), uint8(8), uint8(3), uint8(3))
	f.Add([]byte{0xc1, 0x7f, 0x80, 0xff, 1, 0}, uint8(2), uint8(1), uint8(64), uint8(64), uint8(3), uint8(0))
	f.Add([]byte("some bytes that come again and again"), uint8(0), uint8(2), uint8(70), uint8(3), uint8(2), uint8(1))
	f.Add([]byte{0x7e, 0x01, 0xfe, 0x33}, uint8(3), uint8(4), uint8(65), uint8(128), uint8(3), uint8(2))
	all := everyKernel(f)
	f.Fuzz(func(t *testing.T, seed []byte, k, v, tokens, dims, mode, levels uint8) {
		if len(seed) == 0 {
			seed = []byte{0}
		}
		types := []DType{F32, BF16, F16, F8E4M3, F8E5M2}
		s := &Shape{Layers: 1, Heads: 1, Tokens: 1 + int(tokens)%130, Fields: []Field{
			{K, types[int(k)%len(types)], 1 + int(dims)%72}, {V, types[int(v)%len(types)], 1 + int(dims)%7},
		}}
		raw := make([]byte, s.RawSize())
		for i := range raw {
			// The seed again and again, turned a little so that rows differ.
			raw[i] = seed[i%len(seed)] + byte(i/len(seed)*int(levels>>4))
		}
		low, high := int(levels&3), int(levels>>2&3)
		p := params(s, Mode(1+mode%3), min(low, high), max(low, high), .06)
		p.Sinks = int(tokens) / 100
		roundTrip(t, all, raw, s, p)
	})
}

// Marked synthetic: caches of 8 heads of all types, cut for one, two and four ranks,
// and a latent, which every rank has whole. What a rank stores decodes to the same
// elements however many ranks there are.
func TestSyntheticCaches(t *testing.T) {
	all := everyKernel(t)
	for _, d := range []DType{BF16, F16, F8E4M3, F8E5M2, F32} {
		whole := kvShape(1, 8, 70, 32, d)
		raw := kv(whole, 6)
		for _, mode := range []Mode{Lossless, Plain} {
			var want []byte
			for _, ranks := range []int{1, 2, 4} {
				t.Run(fmt.Sprint(d, " ", mode, " ", ranks, " ranks"), func(t *testing.T) {
					part := kvShape(1, 8/ranks, 70, 32, d)
					p := params(part, mode, 0, 3, .06)
					n := part.LayerSize()
					got := make([]byte, len(raw))
					for rank := range ranks {
						var in []byte
						for layer := range whole.Layers {
							in = append(in, raw[layer*whole.LayerSize()+rank*n:][:n]...)
						}
						roundTrip(t, all, in, part, p)
						out := decode(t, encode(t, in, part, p), part, 2)
						for layer := range whole.Layers {
							copy(got[layer*whole.LayerSize()+rank*n:], out[layer*n:][:n])
						}
					}
					if ranks == 1 {
						want = got
					}
					require.True(t, bytes.Equal(want, got))
				})
			}
		}
	}
	for _, d := range []DType{BF16, F8E4M3} {
		s := &Shape{Layers: 3, Heads: 1, Tokens: 100, Fields: []Field{{Latent, d, 512}, {Rope, BF16, 64}}}
		raw := kv(s, 7)
		for _, mode := range []Mode{Lossless, Plain} {
			p := params(s, mode, 0, 3, .06)
			roundTrip(t, all, raw, s, p)
			object := encode(t, raw, s, p)
			require.Less(t, len(object), len(raw), "a latent of %v shrinks", d)
		}
	}
}

// Every byte of the header's fixed part, of its fields and of its directory set to
// what a hostile writer would choose, under right checksums: an answer, and no more
// memory than the shape that the caller has and the header's own length explain.
func TestEveryHeaderByteIsChecked(t *testing.T) {
	s, objects := smallObjects(t)
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	for _, original := range objects {
		h, err := Parse(original)
		require.NoError(t, err)
		for at := range int(h.Size) - 8 {
			for _, v := range []byte{0, 0x7f, 0xff, original[at] + 1} {
				object := append([]byte(nil), original...)
				object[at] = v
				resign(object)
				var err error
				allocates(t, uint64(4*len(object)+700<<10), fmt.Sprint("byte ", at, " is ", v), func() { err = r.Decode(out, object, s, 0) })
				if err != nil {
					require.Truef(t, refused(err), "byte %d is %d: %v", at, v, err)
				}
			}
		}
	}
	// Whole numbers at their ends.
	for _, f := range []struct{ at, size int }{{8, 4}, {12, 4}, {16, 2}, {18, 2}, {20, 2}, {22, 2}, {24, 4}, {28, 4}, {32, 8}, {40, 8}} {
		for _, v := range []uint64{0, 1, 1 << 15, 1<<16 - 1, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 62, 1 << 63, 1<<64 - 1} {
			object := append([]byte(nil), objects[0]...)
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], v)
			copy(object[f.at:f.at+f.size], b[:])
			resign(object)
			var err error
			allocates(t, uint64(4*len(object)+700<<10), fmt.Sprint("offset ", f.at, " is ", v), func() { err = r.Decode(out, object, s, 0) })
			if !bytes.Equal(object[:fixedSize], objects[0][:fixedSize]) && f.at != 22 { // other sinks may fit, as exact units have none
				require.Truef(t, refused(err), "offset %d is %d: %v", f.at, v, err)
			}
		}
	}
}

// What is encoded is the caller's; how much memory that takes is bounded by its size.
func TestEncodingAllocatesByTheInput(t *testing.T) {
	for _, tokens := range []int{1, 256} {
		s := kvShape(2, 4, tokens, 128, F32)
		raw := kv(s, 1)
		for _, mode := range []Mode{Raw, Lossless, Plain} {
			p := params(s, mode, 0, 3, .06)
			e := NewEncoder(newCoder(t))
			allocates(t, uint64(8*len(raw)+1<<20), fmt.Sprint(mode, " of ", tokens), func() {
				_, err := e.Encode(nil, raw, s, p)
				require.NoError(t, err)
			})
		}
	}
}

// A level beyond the object's is its nearest.
func TestLevelsThatThereAreNot(t *testing.T) {
	s, objects := smallObjects(t)
	for level, same := range map[int]int{-1: L0, -1 << 40: L0, 4: L3, 1 << 40: L3} {
		require.Equal(t, decode(t, objects[0], s, same), decode(t, objects[0], s, level))
	}
}
