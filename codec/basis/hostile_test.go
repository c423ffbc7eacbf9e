package basis

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

// refused says whether err is how hostile bytes may be answered.
func refused(err error) bool {
	k, ok := fault.KindOf(err)
	return ok && (k == fault.Corrupt || k == fault.Miss)
}

// resign makes the checksum of changed bytes right again.
func resign(b []byte) {
	if len(b) >= 8 {
		binary.LittleEndian.PutUint64(b[len(b)-8:], crc64nvme.Checksum(b[:len(b)-8]))
	}
}

func TestDamageIsFound(t *testing.T) {
	b := newBytes(t, small(), 1)
	for bit := 0; bit < 8*len(b); bit += 5 {
		b[bit/8] ^= 1 << (bit % 8)
		_, err := Parse(b)
		require.Truef(t, refused(err), "bit %d: %v", bit, err)
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := 0; n < len(b); n += 3 {
		_, err := Parse(b[:n:n])
		require.Truef(t, refused(err), "%d bytes: %v", n, err)
	}
	_, err := Parse(append(b, 0))
	require.ErrorIs(t, err, fault.Corrupt)
	b[4]++
	_, err = Parse(b)
	require.ErrorIs(t, err, fault.Miss)
}

// Counts that lie make nothing grow, and bytes with a right checksum are refused or
// give finite numbers.
func TestForgedBases(t *testing.T) {
	whole := newBytes(t, small(), 1)
	g := rand.New(rand.NewPCG(1, 1))
	read := 0
	for range 4000 {
		b := append([]byte(nil), whole...)
		for range 1 + g.IntN(2) {
			if g.IntN(2) == 0 {
				b[5+g.IntN(fixedSize+2*fieldSize-5)] = byte(g.Uint32())
			} else {
				b[g.IntN(len(b))] = byte(g.Uint32())
			}
		}
		resign(b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse(b)
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(4*len(b)+64<<10))
		if err != nil {
			require.Truef(t, refused(err), "%v", err)
		} else {
			read++
		}
	}
	require.Positive(t, read)
}

func FuzzBasis(f *testing.F) {
	f.Add(newBytes(f, small(), 1))
	f.Add(newBytes(f, &Shape{Unit: Bundle, Layers: 1, Heads: 2, Joined: 2, Fields: []Field{{3, 1, 1}}}, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			got, err := Parse(b)
			if err != nil {
				require.Truef(t, refused(err), "%v", err)
			} else {
				for i := range got.transforms {
					tr := &got.transforms[i]
					c := make([]float32, len(tr.Mean))
					for j := range c {
						c[j] = float32(j%3-1) * 0x1p+79
					}
					row := make([]float32, len(c))
					tr.Reconstruct(row, c)
					if _, field, _ := got.UnitOf(i); got.Turns(field) {
						cs := make([]float32, got.Rope.Dims)
						got.Turn(cs, got.Rope.Positions-1)
						got.Rotate(row, cs, len(row)/got.Joined)
					}
					for _, v := range row {
						require.Zero(t, v-v, "not finite")
					}
				}
			}
			b = append([]byte(nil), b...)
			resign(b)
		}
	})
}
