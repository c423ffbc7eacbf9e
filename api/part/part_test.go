package part

import (
	"bytes"
	"math"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"
)

// filled returns a sealed descriptor of length bytes and the bytes.
func filled(tb testing.TB, layers, length int) (*Descriptor, []byte) {
	tb.Helper()
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(i*i + 3)
	}
	d := sealed(tb, 1)
	d.ID = ID{Chunk: keys.Key{1}, Group: 2, Span: 3, HeadGroup: 0x0405}
	d.Parent, d.Ordinal = keys.Key{6}, 7
	d.StoredLength, d.RawLength = uint32(length), uint32(length)
	var err error
	d.Table, err = Checksums(nil, data, layers)
	require.NoError(tb, err)
	require.NoError(tb, Seal(d))
	return d, data
}

func TestVerifyNamesTheLayer(t *testing.T) {
	d, data := filled(t, 8, 8*300)
	require.NoError(t, Verify(d, data))
	for layer := range 8 {
		for _, at := range []int{layer * 300, layer*300 + 299} {
			data[at] ^= 0x80
			err := Verify(d, data)
			require.ErrorIs(t, err, fault.Corrupt)
			require.ErrorContains(t, err, "layer "+string(rune('0'+layer))+" of part ")
			for first := range 8 {
				for n := 1; first+n <= 8; n++ {
					err := VerifyRange(d, data[first*300:(first+n)*300], first, n)
					require.Equal(t, first <= layer && layer < first+n, err != nil)
				}
			}
			data[at] ^= 0x80
		}
	}
}

func TestVerifyBadRanges(t *testing.T) {
	d, data := filled(t, 8, 800)
	for _, c := range []struct {
		first, layers, bytes int
		kind                 fault.Kind
	}{
		{0, 0, 0, fault.Invalid}, {-1, 1, 100, fault.Invalid}, {8, 1, 100, fault.Invalid}, {0, 9, 800, fault.Invalid},
		{1, math.MaxInt, 100, fault.Invalid}, {math.MaxInt, 1, 100, fault.Invalid},
		{0, 1, 99, fault.Corrupt}, {0, 1, 101, fault.Corrupt}, {0, 1, 0, fault.Corrupt},
	} {
		require.ErrorIs(t, VerifyRange(d, data[:c.bytes], c.first, c.layers), c.kind, "%+v", c)
	}
	require.ErrorIs(t, Verify(d, data[:799]), fault.Corrupt)
	require.ErrorIs(t, Verify(d, nil), fault.Corrupt)
}

// The right bytes under another name are not the part.
func TestSealCoversEverything(t *testing.T) {
	for name, change := range map[string]func(*Descriptor){
		"chunk":      func(d *Descriptor) { d.ID.Chunk[31]++ },
		"group":      func(d *Descriptor) { d.ID.Group++ },
		"span":       func(d *Descriptor) { d.ID.Span++ },
		"head group": func(d *Descriptor) { d.ID.HeadGroup += 0x100 },
		"parent":     func(d *Descriptor) { d.Parent[0]++ },
		"ordinal":    func(d *Descriptor) { d.Ordinal++ },
		"tokens":     func(d *Descriptor) { d.Tokens-- },
		"quality":    func(d *Descriptor) { d.Quality++ },
		"encoding":   func(d *Descriptor) { d.Encoding += 8 },
		"version":    func(d *Descriptor) { d.EncodingVersion++ },
		"lengths":    func(d *Descriptor) { d.RawLength += 8; d.StoredLength += 8 },
		"table":      func(d *Descriptor) { d.Table[0], d.Table[1] = d.Table[1], d.Table[0] },
		"table size": func(d *Descriptor) { d.Table = d.Table[:4] },
		"checksum":   func(d *Descriptor) { d.Checksum++ },
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := filled(t, 8, 800)
			require.NoError(t, VerifySeal(d))
			change(d)
			require.ErrorIs(t, VerifySeal(d), fault.Corrupt)
			require.Error(t, Decode(new(Descriptor), d.AppendTo(nil)))
		})
	}
}

func TestEveryBitOfTheEncodingCounts(t *testing.T) {
	d, _ := filled(t, 3, 300)
	good := d.AppendTo(nil)
	require.Len(t, good, d.Size())
	for i := range 8 * len(good) {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		require.Error(t, Decode(new(Descriptor), b), "bit %d", i)
	}
	for n := range good {
		require.Error(t, Decode(new(Descriptor), good[:n]), "%d bytes", n)
	}
}

func TestUnknownEncodingIsCarriedAndAMiss(t *testing.T) {
	d, data := filled(t, 2, 200)
	d.Encoding, d.Basis, d.StoredLength = 9, 1<<63, 10
	require.NoError(t, Seal(d))
	require.False(t, d.Known())
	var back Descriptor
	require.NoError(t, Decode(&back, d.AppendTo(nil)))
	require.Equal(t, *d, back)
	require.ErrorIs(t, Verify(&back, data), fault.Miss)
}

// bundled describes them as a slice of one.
func bundled(tb testing.TB) *Descriptor {
	d := coded(tb)
	d.Encoding, d.EncodingVersion, d.Table = EncodingBundle, BundleVersion, d.Table[:CodecBytes+1]
	if err := Seal(d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// coded describes 1000 zeros as an object of the codec; what is in it is the
// codec's business.
func coded(tb testing.TB) *Descriptor {
	tb.Helper()
	d := sealed(tb, 1)
	d.Encoding, d.EncodingVersion, d.StoredLength, d.Quality = EncodingCodec, CodecVersion, 1000, 3
	d.Table = []uint64{CodecHeader: 7, CodecBytes: crc64nvme.Checksum(make([]byte, 1000))}
	require.NoError(tb, Seal(d))
	return d
}

func TestCoded(t *testing.T) {
	d := coded(t)
	var back Descriptor
	require.NoError(t, Decode(&back, d.AppendTo(nil)))
	require.True(t, back.Known() && back.Coded() && !back.Raw())
	data := make([]byte, 1000)
	require.NoError(t, Verify(&back, data))
	require.ErrorIs(t, VerifyRange(&back, data, 0, 1), fault.Miss)
	require.ErrorIs(t, Verify(&back, data[:999]), fault.Corrupt)
	data[500]++
	require.ErrorIs(t, Verify(&back, data), fault.Corrupt)
	// Another version is none that we know.
	d.EncodingVersion++
	require.NoError(t, Seal(d))
	require.False(t, d.Known())
	require.ErrorIs(t, Verify(d, data), fault.Miss)
}

func TestDecodeReusesMemoryAndKeepsOnError(t *testing.T) {
	d, _ := filled(t, 32, 3200)
	good := d.AppendTo(nil)
	back := Descriptor{Table: make([]uint64, 1, 32)}
	var failed error
	require.Zero(t, testing.AllocsPerRun(20, func() { failed = Decode(&back, good) }))
	require.NoError(t, failed)
	require.Equal(t, *d, back)

	other, _ := filled(t, 32, 6400)
	bad := other.AppendTo(nil)
	// Summed again after the table lost its sense for a raw part.
	bad[88] = 1
	covered := bad[:len(bad)-8]
	sum := crc64nvme.Checksum(covered)
	for i := range 8 {
		bad[len(covered)+i] = byte(sum >> (8 * i))
	}
	require.ErrorIs(t, Decode(&back, bad), fault.Invalid)
	require.Equal(t, *d, back, "a failed decode changed the descriptor")
}

func TestSealDoesNotAllocateWithABuffer(t *testing.T) {
	d, _ := filled(t, 64, 6400)
	want := d.AppendTo(nil)
	buf := make([]byte, 0, MaxSize)
	var failed error
	require.Zero(t, testing.AllocsPerRun(20, func() { buf, failed = AppendSealed(buf[:0], d) }))
	require.NoError(t, failed)
	require.Equal(t, want, buf)

	d.Tokens = 0
	got, err := AppendSealed([]byte{1}, d)
	require.ErrorIs(t, err, fault.Invalid)
	require.Equal(t, []byte{1}, got)
	require.ErrorIs(t, Seal(d), fault.Invalid)
	require.ErrorIs(t, VerifySeal(d), fault.Invalid)
}

func TestChecksums(t *testing.T) {
	got, err := Checksums([]uint64{7}, []byte("123456789123456789"), 2)
	require.NoError(t, err)
	require.Equal(t, []uint64{7, 0xae8b14860a799888, 0xae8b14860a799888}, got)
	for _, c := range []struct{ bytes, layers int }{{0, 1}, {10, 0}, {10, -1}, {10, 3}, {2048, 1025}} {
		_, err := Checksums(nil, make([]byte, c.bytes), c.layers)
		require.ErrorIs(t, err, fault.Invalid, "%+v", c)
	}
}

// Each limit may be reached and not passed.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		field string
		set   func(d *Descriptor, more int)
	}{
		{"part.tokens", func(d *Descriptor, more int) { d.Tokens = uint16(1024 + more) }},
		{"part.tokens", func(d *Descriptor, more int) { d.Tokens = uint16(1 - more) }},
		{"part.encoding", func(d *Descriptor, more int) { d.Encoding = uint8(1 - more) }},
		{"part.stored_length", func(d *Descriptor, more int) { d.Encoding, d.StoredLength = 9, uint32(64<<20+more) }},
		{"part.stored_length", func(d *Descriptor, more int) { d.Encoding, d.StoredLength = 9, uint32(1-more) }},
		{"part.stored_length", func(d *Descriptor, more int) { d.StoredLength += uint32(more) }},
		{"part.raw_length", func(d *Descriptor, more int) {
			d.Encoding, d.RawLength = 9, uint32(64<<20+more)
		}},
		{"part.raw_length", func(d *Descriptor, more int) { d.Encoding, d.RawLength = 9, uint32(1-more) }},
		{"part.basis", func(d *Descriptor, more int) { d.Basis = uint64(more) }},
		{"part.table", func(d *Descriptor, more int) { d.Encoding, d.Table = 9, make([]uint64, 4096+more) }},
		{"part.table", func(d *Descriptor, more int) { d.Table = make([]uint64, 1-more) }},
		{"part.table", func(d *Descriptor, more int) {
			d.Table = make([]uint64, 1024+more)
			d.StoredLength, d.RawLength = uint32(len(d.Table)), uint32(len(d.Table))
		}},
		{"part.table", func(d *Descriptor, more int) { d.Table = make([]uint64, 2+more) }},
		{"part.table", func(d *Descriptor, more int) { *d = *coded(t); d.Table = make([]uint64, 2-more) }},
		{"part.table", func(d *Descriptor, more int) { *d = *coded(t); d.Table = make([]uint64, 3+more) }},
		{"part.stored_length", func(d *Descriptor, more int) { *d = *coded(t); d.StoredLength = d.RawLength - uint32(1-more) }},
		{"part.table", func(d *Descriptor, more int) { *d = *bundled(t); d.Table = make([]uint64, 2-more) }},
		{"part.table", func(d *Descriptor, more int) { *d = *bundled(t); d.Table = make([]uint64, 2+more) }},
		{"part.stored_length", func(d *Descriptor, more int) { *d = *bundled(t); d.StoredLength = d.RawLength - uint32(1-more) }},
	} {
		at, past := *sealed(t, 1), *sealed(t, 1)
		c.set(&at, 0)
		b, err := AppendSealed(nil, &at)
		require.NoError(t, err, c.field)
		var back Descriptor
		require.NoError(t, Decode(&back, b), c.field)
		require.Equal(t, at, back)
		c.set(&past, 1)
		err = Seal(&past)
		var e *fault.Error
		require.ErrorAs(t, err, &e, c.field)
		require.Equal(t, c.field, e.Field)
		require.Equal(t, fault.Invalid, e.Kind)
	}
}

func TestQuality(t *testing.T) {
	d := Descriptor{Quality: 2}
	require.False(t, d.Acceptable(QualityExact))
	require.False(t, d.Acceptable(1))
	require.True(t, d.Acceptable(2))
	require.True(t, d.Acceptable(3))
}

func TestID(t *testing.T) {
	id := ID{Chunk: keys.Key{0: 1, 31: 2}, Group: 3, Span: 4, HeadGroup: 0x0506}
	b := id.AppendTo([]byte{9})
	require.Equal(t, []byte{3, 4, 6, 5}, b[33:])
	back, err := DecodeID(b[1:])
	require.NoError(t, err)
	require.Equal(t, id, back)
	_, err = DecodeID(b)
	require.ErrorIs(t, err, fault.Invalid)
	require.Contains(t, id.String(), "/3/4/1286")
}
