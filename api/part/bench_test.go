package part

import "testing"

func sealed(tb testing.TB, layers int) *Descriptor {
	tb.Helper()
	d := &Descriptor{Tokens: 256, Encoding: EncodingRaw, EncodingVersion: RawVersion, StoredLength: uint32(layers) << 12, RawLength: uint32(layers) << 12}
	d.Table = make([]uint64, layers)
	if err := Seal(d); err != nil {
		tb.Fatal(err)
	}
	return d
}

func BenchmarkSealEncodeDecode32Layers(b *testing.B) {
	d := sealed(b, 32)
	var back Descriptor
	buf := make([]byte, 0, MaxSize)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = AppendSealed(buf[:0], d); err != nil {
			b.Fatal(err)
		}
		if err := Decode(&back, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChecksums4MiB(b *testing.B) {
	data := make([]byte, 4<<20)
	dst := make([]uint64, 0, 32)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = Checksums(dst[:0], data, 32); err != nil {
			b.Fatal(err)
		}
	}
}
