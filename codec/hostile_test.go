package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"
)

// resign makes the checksums of a changed object right again, as far as its
// header can still be read, so that what lies behind them is tested.
func resign(obj []byte) {
	n, err := HeaderSize(obj)
	if err != nil || n > int64(len(obj)) {
		return
	}
	le := binary.LittleEndian
	fields, layers, heads := int(obj[7]), int(le.Uint16(obj[18:])), int(le.Uint16(obj[20:]))
	dir := fixedSize + fields*fieldSize
	if le.Uint64(obj[40:]) == basisSize && dir+basisSize <= len(obj) {
		if g := int(le.Uint16(obj[dir+38:])); g > 0 { // so many heads are a unit
			heads /= g
		}
		dir += basisSize
	}
	dir += 4*int(le.Uint32(obj[24:])) + int(le.Uint32(obj[28:]))
	units := layers * heads * fields
	entries := units * (int(obj[6]) - int(obj[5]) + 1)
	if entries > 0 && dir+4*entries+8*entries*layers/units <= int(n)-8 {
		at := n
		for i := range entries * layers / units {
			size := int64(0)
			for k := range units / layers {
				size += padded(int64(le.Uint32(obj[dir+4*(i*units/layers+k):]) & lengthMask))
			}
			if at+size > int64(len(obj)) {
				break
			}
			le.PutUint64(obj[dir+4*entries+8*i:], crc64nvme.Checksum(obj[at:at+size]))
			at += size
		}
	}
	le.PutUint64(obj[n-8:], crc64nvme.Checksum(obj[:n-8]))
}

// allocates checks that f allocates at most so many bytes.
func allocates(tb testing.TB, bytes uint64, what string, f func()) {
	tb.Helper()
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	require.LessOrEqual(tb, b.TotalAlloc-a.TotalAlloc, bytes, what)
}

// refused says whether err is how hostile bytes may be answered.
func refused(err error) bool {
	k, ok := fault.KindOf(err)
	return ok && (k == fault.Corrupt || k == fault.Miss)
}

func smallObjects(tb testing.TB) (*Shape, [][]byte) {
	s := &Shape{Layers: 2, Heads: 1, Tokens: 70, Fields: []Field{{K, BF16, 20}, {V, F16, 9}}}
	raw := kv(s, 1)
	set(s, raw, 2, 3, 4, 0x7fc0)
	plain := params(s, Plain, 0, 3, .06)
	plain.Sinks = 2
	return s, [][]byte{
		encode(tb, raw, s, plain),
		encode(tb, raw, s, params(s, Plain, 1, 1, .06)),
		encode(tb, raw, s, params(s, Lossless, 0, 0, 1)),
		encode(tb, raw, s, params(s, Raw, 0, 0, 1)),
	}
}

func TestEveryBitFlipIsFound(t *testing.T) {
	s, objects := smallObjects(t)
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	for _, obj := range objects {
		for bit := 0; bit < 8*len(obj); bit += 7 {
			obj[bit/8] ^= 1 << (bit % 8)
			err := r.Decode(out, obj, s, 0)
			require.Truef(t, refused(err), "bit %d: %v", bit, err)
			obj[bit/8] ^= 1 << (bit % 8)
		}
		require.NoError(t, r.Decode(out, obj, s, 0))
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	s, objects := smallObjects(t)
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	for _, obj := range objects {
		h, err := Parse(obj)
		require.NoError(t, err)
		for n := 0; n < len(obj); n += 3 {
			err := r.Decode(out, obj[:n:n], s, 0)
			require.Truef(t, errors.Is(err, fault.Corrupt), "%d of %d bytes: %v", n, len(obj), err)
			require.Equal(t, int64(n) >= h.Prefix(3), r.Decode(out, obj[:n:n], s, 3) == nil)
		}
		require.ErrorIs(t, r.Decode(out, append(obj[:len(obj):len(obj)], 0), s, 0), fault.Corrupt)
	}
}

// Bytes with right checksums that no encoder wrote: an error or other values,
// never a panic, never more memory than the shape explains.
func TestForgedObjects(t *testing.T) {
	s, objects := smallObjects(t)
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	g := rand.New(rand.NewPCG(1, 1))
	wrong := 0
	for range 6000 {
		obj := append([]byte(nil), objects[g.IntN(len(objects))]...)
		for range 1 + g.IntN(3) {
			obj[g.IntN(len(obj))] = byte(g.Uint32())
		}
		resign(obj)
		if err := r.Decode(out, obj, s, g.IntN(4)); err != nil {
			require.Truef(t, refused(err), "%v", err)
			wrong++
		}
	}
	require.Greater(t, wrong, 2000)
}

func TestCallerErrors(t *testing.T) {
	s, objects := smallObjects(t)
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	require.ErrorIs(t, r.Decode(out[1:], objects[0], s, 0), fault.Invalid)
	other := *s
	other.Tokens--
	require.ErrorIs(t, r.Decode(out[:other.RawSize()], objects[0], &other, 0), fault.Corrupt, "the object is not what was asked for")
	other = *s
	other.Fields = []Field{s.Fields[0], {V, BF16, 9}}
	require.ErrorIs(t, r.Decode(out, objects[0], &other, 0), fault.Corrupt)
	objects[0][4]++
	require.ErrorIs(t, r.Decode(out, objects[0], s, 0), fault.Miss, "a later version")

	e := NewEncoder(newCoder(t))
	for name, change := range map[string]func(*Shape, *Params){
		"no tokens":      func(s *Shape, _ *Params) { s.Tokens = 0 },
		"many tokens":    func(s *Shape, _ *Params) { s.Tokens = MaxTokens + 1 },
		"no fields":      func(s *Shape, _ *Params) { s.Fields = nil },
		"unknown type":   func(s *Shape, _ *Params) { s.Fields = []Field{{K, 77, 20}, {V, F16, 9}} },
		"keys of bytes":  func(s *Shape, _ *Params) { s.Fields = []Field{{K, U8, 20}, {V, F16, 9}} },
		"too many units": func(s *Shape, _ *Params) { s.Layers, s.Heads = 1024, 1024 },
		"levels":         func(_ *Shape, p *Params) { p.Finest, p.Coarsest = 2, 1 },
		"level 4":        func(_ *Shape, p *Params) { p.Coarsest = 4 },
		"steps":          func(_ *Shape, p *Params) { p.Fields[0].Steps = []float32{1, 2, 3} },
		"no step":        func(_ *Shape, p *Params) { p.Fields[0].Steps = []float32{0} },
		"fields":         func(_ *Shape, p *Params) { p.Fields = p.Fields[:1] },
		"mode":           func(_ *Shape, p *Params) { p.Fields[1].Mode = 9 },
		"sinks":          func(_ *Shape, p *Params) { p.Sinks = -1 },
		"size":           func(s *Shape, _ *Params) { s.Tokens++ },
	} {
		c, p := *s, params(s, Plain, 0, 3, .06)
		change(&c, p)
		dst, err := e.Encode([]byte{1}, out, &c, p)
		require.ErrorIs(t, err, fault.Invalid, name)
		require.Equal(t, []byte{1}, dst)
	}
}

// Nothing is allocated by what an object says: the shape of the caller and the
// length of the header bound it.
func TestAllocationLimits(t *testing.T) {
	s, objects := smallObjects(t)
	g := rand.New(rand.NewPCG(2, 1))
	r := NewReader(newCoder(t))
	out := make([]byte, s.RawSize())
	for i := range 2000 {
		obj := append([]byte(nil), objects[i%len(objects)]...)
		// Counts and lengths only.
		for range 1 + g.IntN(2) {
			obj[5+g.IntN(fixedSize+2*fieldSize-5)] = byte(g.Uint32())
		}
		resign(obj)
		allocates(t, uint64(4*len(obj)+600<<10), "parse", func() { _, _ = Parse(obj) })
		allocates(t, uint64(4*len(obj)+700<<10), "decode", func() { _ = r.Decode(out, obj, s, 0) })
	}
}

func FuzzHeader(f *testing.F) {
	_, objects := smallObjects(f)
	for _, o := range objects {
		h, err := Parse(o)
		require.NoError(f, err)
		f.Add(o[:h.Size])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			h, err := Parse(b)
			if err != nil {
				require.Truef(t, refused(err), "%v", err)
			} else {
				again := *h
				again.starts = make([]int64, len(h.starts))
				require.Equal(t, b[:h.Size], again.append(nil, again.appendTables(nil)), "one header, one encoding")
				require.LessOrEqual(t, h.Prefix(3), h.Prefix(0))
				require.Equal(t, h.ObjectSize, h.Prefix(0))
			}
			b = append([]byte(nil), b...)
			resign(b)
		}
	})
}

func FuzzBody(f *testing.F) {
	s, objects := smallObjects(f)
	for i := range objects {
		f.Add(uint8(i), uint8(0), []byte{0, 0, 0})
		f.Add(uint8(i), uint8(3), []byte{200, 1, 9, 90, 0, 255})
	}
	all := everyKernel(f)
	out, want := make([]byte, s.RawSize()), make([]byte, s.RawSize())
	f.Fuzz(func(t *testing.T, which, level uint8, changes []byte) {
		obj := append([]byte(nil), objects[int(which)%len(objects)]...)
		for ; len(changes) >= 3; changes = changes[3:] {
			obj[int(binary.LittleEndian.Uint16(changes))%len(obj)] = changes[2]
		}
		resign(obj)
		// The reference's answer is every kernel's.
		wrong := all[len(all)-1].Decode(want, obj, s, int(level%4))
		if wrong != nil {
			require.Truef(t, refused(wrong), "%v", wrong)
		}
		for _, r := range all {
			err := r.Decode(out, obj, s, int(level%4))
			require.Equalf(t, wrong == nil, err == nil, "%v: %v, the reference: %v", r.kernel, err, wrong)
			if err == nil {
				require.Truef(t, bytes.Equal(want, out), "%v decodes to other bytes", r.kernel)
			}
		}
	})
}
