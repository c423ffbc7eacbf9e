package codec

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

func calibratedObjects(tb testing.TB) (*Shape, *basis.Basis, [][]byte) {
	s := &Shape{Layers: 2, Heads: 2, Tokens: 70, Fields: []Field{{K, BF16, 10}, {V, F16, 9}}}
	raw := kv(s, 1)
	set(s, raw, 4, 3, 4, 0x7fc0)
	b := basisFor(tb, s, 2, 2)
	p := calibratedParams(s, b, 0, 3)
	p.Sinks = 2
	mixed := calibratedParams(s, b, 1, 2)
	mixed.Fields[1].Mode = Plain
	return s, b, [][]byte{encode(tb, raw, s, p), encode(tb, raw, s, calibratedParams(s, b, 1, 1)), encode(tb, raw, s, mixed)}
}

func TestCalibratedDamageIsFound(t *testing.T) {
	s, b, objects := calibratedObjects(t)
	r := readerOf(t, b)
	out := make([]byte, s.RawSize())
	for _, obj := range objects {
		for bit := 0; bit < 8*len(obj); bit += 37 {
			obj[bit/8] ^= 1 << (bit % 8)
			err := r.Decode(out, obj, s, 0)
			require.Truef(t, refused(err), "bit %d: %v", bit, err)
			obj[bit/8] ^= 1 << (bit % 8)
		}
		h, err := Parse(obj)
		require.NoError(t, err)
		for n := 0; n < len(obj); n += 11 {
			err := r.Decode(out, obj[:n:n], s, 0)
			require.Truef(t, errors.Is(err, fault.Corrupt), "%d of %d bytes: %v", n, len(obj), err)
			require.Equal(t, int64(n) >= h.Prefix(3), r.Decode(out, obj[:n:n], s, 3) == nil)
		}
	}
}

func TestForgedCalibratedObjects(t *testing.T) {
	s, b, objects := calibratedObjects(t)
	r := NewReader(newCoder(t))
	r.SetBases(func(basis.ID) *basis.Basis { return b }) // whatever its name
	out := make([]byte, s.RawSize())
	g := rand.New(rand.NewPCG(1, 1))
	wrong, right := 0, 0
	for i := range 3000 {
		obj := append([]byte(nil), objects[g.IntN(len(objects))]...)
		for range 1 + g.IntN(3) {
			if i%2 == 0 {
				obj[g.IntN(len(obj))] = byte(g.Uint32())
			} else {
				obj[5+g.IntN(fixedSize+2*fieldSize+basisSize-5)] = byte(g.Uint32())
			}
		}
		resign(obj)
		var err error
		allocates(t, uint64(4*len(obj)+700<<10), "decode", func() { err = r.Decode(out, obj, s, g.IntN(4)) })
		if err != nil {
			require.Truef(t, refused(err), "%v", err)
			wrong++
		} else {
			right++
		}
	}
	require.Greater(t, wrong, 1000)
	require.Greater(t, right, 150, "changed bodies decode to other values")
}

func FuzzCalibrated(f *testing.F) {
	s, b, objects := calibratedObjects(f)
	for i := range objects {
		f.Add(uint8(i), uint8(0), []byte{0, 0, 0})
		f.Add(uint8(i), uint8(3), []byte{200, 1, 9, 90, 0, 255})
	}
	r := NewReader(newCoder(f))
	r.SetBases(func(basis.ID) *basis.Basis { return b })
	out := make([]byte, s.RawSize())
	f.Fuzz(func(t *testing.T, which, level uint8, changes []byte) {
		obj := append([]byte(nil), objects[int(which)%len(objects)]...)
		for ; len(changes) >= 3; changes = changes[3:] {
			obj[int(binary.LittleEndian.Uint16(changes))%len(obj)] = changes[2]
		}
		resign(obj)
		if h, err := Parse(obj); err == nil {
			again := *h
			again.starts = make([]int64, len(h.starts))
			require.Equal(t, obj[:h.Size], again.append(nil, again.appendTables(nil)), "one header, one encoding")
		}
		if err := r.Decode(out, obj, s, int(level%4)); err != nil {
			require.Truef(t, refused(err), "%v", err)
		}
	})
}
