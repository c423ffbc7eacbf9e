package vectors_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"
)

type partVector struct {
	Name            string   `json:"name"`
	Chunk           hexBytes `json:"chunk"`
	Group           uint8    `json:"group"`
	Span            uint8    `json:"span"`
	HeadGroup       uint16   `json:"head_group"`
	Parent          hexBytes `json:"parent"`
	Ordinal         uint32   `json:"ordinal"`
	Tokens          uint16   `json:"tokens"`
	Encoding        uint8    `json:"encoding"`
	EncodingVersion uint8    `json:"encoding_version"`
	Quality         uint8    `json:"quality"`
	Basis           uint64   `json:"basis"`
	StoredLength    uint32   `json:"stored_length"`
	RawLength       uint32   `json:"raw_length"`
	Known           bool     `json:"known"`
	// Table, or, for known parts, the table of raw_length bytes of which the
	// i-th is (131 i + 7) mod 256, cut into Layers.
	Layers     int      `json:"layers"`
	Table      []uint64 `json:"table,omitempty"`
	Checksum   uint64   `json:"checksum"`
	Descriptor hexBytes `json:"descriptor"`
}

type partsFile struct {
	// CRC-64/NVMe of the ASCII text "123456789".
	CRCCheck uint64         `json:"crc_check"`
	Parts    []partVector   `json:"parts"`
	Invalid  []invalidInput `json:"invalid"`
}

func payload(n uint32) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(131*i + 7)
	}
	return b
}

func rawPart(t *testing.T, layers int, length uint32) part.Descriptor {
	t.Helper()
	table, err := part.Checksums(nil, payload(length), layers)
	require.NoError(t, err)
	return part.Descriptor{
		ID:     part.ID{Chunk: keys.Key(digest(0x77)), Group: 1, Span: 2, HeadGroup: 0x0304},
		Parent: keys.Key(digest(0x88)), Ordinal: 5, Tokens: 256,
		Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion,
		StoredLength: length, RawLength: length, Table: table,
	}
}

func TestParts(t *testing.T) {
	file := partsFile{CRCCheck: crc64nvme.Checksum([]byte("123456789"))}
	require.Equal(t, uint64(0xae8b14860a799888), file.CRCCheck)
	change := func(d part.Descriptor, f func(*part.Descriptor)) part.Descriptor {
		d.Table = slices.Clone(d.Table)
		f(&d)
		return d
	}
	one, twelve := rawPart(t, 1, 4096), rawPart(t, 12, 12*512)
	type D = part.Descriptor
	coded := change(one, func(d *D) {
		d.Encoding, d.EncodingVersion, d.Quality, d.Basis = 2, 3, 1, 0x0102030405060708
		d.StoredLength, d.RawLength, d.Table = 1000, 4096, []uint64{1, 1 << 63, 3}
	})
	// The stored bytes are no object; what is in it is the codec's business.
	object := change(coded, func(d *D) {
		d.EncodingVersion, d.Basis = part.CodecVersion, 0
		d.Table = []uint64{part.CodecHeader: 1 << 63, part.CodecBytes: crc64nvme.Checksum(payload(1000))}
	})
	for _, v := range []struct {
		name string
		d    D
	}{
		{"one layer", one},
		{"twelve layers", twelve},
		{"1024 layers of one byte", rawPart(t, 1024, 1024)},
		{"raw bytes with a lossy history", change(one, func(d *D) { d.Quality = 3 })},
		{"largest numbers", change(one, func(d *D) {
			d.ID = part.ID{Chunk: keys.Key(digest(0xff)), Group: 255, Span: 255, HeadGroup: 65535}
			d.Parent, d.Ordinal, d.Tokens, d.Quality = keys.Key(digest(0xff)), 1<<32-1, 1024, 255
		})},
		{"coded, of a later version", coded},
		{"coded", object},
		{"coded without loss", change(object, func(d *D) { d.Quality, d.Table = 0, append(d.Table, 5) })},
		{"a slice of a bundle", change(object, func(d *D) { d.Encoding, d.EncodingVersion, d.Basis = 3, part.BundleVersion, 7 })},
		{"a slice of a bundle, of a later version", change(coded, func(d *D) { d.Encoding = 3 })},
		{"raw of a later version", change(coded, func(d *D) { d.Encoding, d.EncodingVersion = 1, 2 })},
	} {
		d := v.d
		b, err := part.AppendSealed(nil, &d)
		require.NoError(t, err, v.name)
		var back D
		require.NoError(t, part.Decode(&back, b), v.name)
		require.Equal(t, d, back, v.name)
		if d.Known() {
			require.NoError(t, part.Verify(&back, payload(d.StoredLength)), v.name)
		}
		pv := partVector{v.name, d.ID.Chunk[:], d.ID.Group, d.ID.Span, d.ID.HeadGroup, d.Parent[:], d.Ordinal, d.Tokens,
			d.Encoding, d.EncodingVersion, d.Quality, d.Basis, d.StoredLength, d.RawLength, d.Known(), len(d.Table), nil, d.Checksum, b}
		if !d.Raw() {
			pv.Table = d.Table
		}
		file.Parts = append(file.Parts, pv)
	}

	add := func(name string, b []byte) {
		var d D
		file.Invalid = append(file.Invalid, rejected(t, name, b, part.Decode(&d, b)))
	}
	good, err := part.AppendSealed(nil, &twelve)
	require.NoError(t, err)
	add("empty", nil)
	add("shortest minus one", good[:part.MinSize-1])
	add("truncated", good[:len(good)-1])
	add("trailing byte", append(slices.Clone(good), 0))
	flip := func(offset int) []byte {
		b := slices.Clone(good)
		b[offset] ^= 1
		return b
	}
	add("format 0", flip(0))
	for _, f := range []struct {
		name   string
		offset int
	}{{"chunk key", 4}, {"group", 36}, {"span", 37}, {"head group", 39}, {"parent", 40}, {"ordinal", 72}, {"tokens", 76},
		{"stored length", 80}, {"raw length", 84}, {"basis", 88}, {"table", 96}, {"checksum", len(good) - 1}} {
		add("flipped bit: "+f.name, flip(f.offset))
	}
	add("flipped bit: table size", flip(78))
	// Well summed, but never made by anybody.
	sum := func(name string, edit func(b []byte) []byte) {
		b := edit(slices.Clone(good[:len(good)-8]))
		add(name, binary.LittleEndian.AppendUint64(b, crc64nvme.Checksum(b)))
	}
	put16 := func(o int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[o:], v); return b }
	}
	put32 := func(o int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[o:], v); return b }
	}
	sum("format 2", func(b []byte) []byte { b[0] = 2; return b })
	sum("encoding 0", func(b []byte) []byte { b[1] = 0; return b })
	sum("no token", put16(76, 0))
	sum("1025 tokens", put16(76, 1025))
	sum("stored nothing", put32(80, 0))
	sum("stored too much", put32(80, 64<<20+1))
	sum("stored 2^32-1", put32(80, 1<<32-1))
	sum("raw nothing", put32(84, 0))
	sum("raw too much", put32(84, 64<<20+1))
	sum("raw stored shorter", put32(80, 12*256))
	sum("raw with a basis", func(b []byte) []byte { b[95] = 1; return b })
	sum("table size 65535 in a short encoding", put16(78, 65535))
	sum("layers do not divide", func(b []byte) []byte {
		return put32(84, 12*512+1)(put32(80, 12*512+1)(b))
	})
	sum("raw with 1025 layers", func(b []byte) []byte {
		b = put32(84, 1025)(put32(80, 1025)(put16(78, 1025)(b[:part.HeaderSize])))
		return append(b, make([]byte, 8*1025)...)
	})
	good, err = part.AppendSealed(nil, &object)
	require.NoError(t, err)
	sum("coded and not shorter", put32(80, 4096))
	sum("coded, one checksum", func(b []byte) []byte { return put16(78, 1)(b[:part.HeaderSize+8]) })
	sum("coded, four checksums", func(b []byte) []byte { return append(put16(78, 4)(b), make([]byte, 16)...) })
	sum("table empty", func(b []byte) []byte { return put16(78, 0)(b[:part.HeaderSize]) })
	golden(t, "parts.json", file)
}
