package codec

import (
	"fmt"
	"testing"
)

// Bytes are uncoded ones. The bars of the project are measured elsewhere, beside
// a baseline; these show where time goes.
func BenchmarkCodec(b *testing.B) {
	s := kvShape(8, 2, 256, 128, BF16)
	raw := kv(s, 1)
	for _, c := range []struct {
		name             string
		mode             Mode
		finest, coarsest int
	}{{"lossless", Lossless, 0, 0}, {"L1 alone", Plain, 1, 1}, {"L1 of L0-L3", Plain, 0, 3}, {"L2 alone", Plain, 2, 2}} {
		p := params(s, c.mode, c.finest, c.coarsest, .06)
		obj := encode(b, raw, s, p)
		level := 1
		if c.finest > 1 {
			level = c.finest
		}
		b.Run(fmt.Sprint("decode/", c.name), func(b *testing.B) { benchDecode(b, NewReader(newCoder(b)), obj, s, level) })
		b.Run(fmt.Sprint("encode/", c.name), func(b *testing.B) { benchEncode(b, raw, s, p) })
	}
}

// BenchmarkCalibrated: a bundle of two heads.
func BenchmarkCalibrated(b *testing.B) {
	s := kvShape(1, 2, 256, 128, BF16)
	raw, from := kv(s, 1), basisFor(b, s, 2, 2)
	p := calibratedParams(s, from, 2, 2)
	obj := encode(b, raw, s, p)
	b.Run("decode", func(b *testing.B) { benchDecode(b, readerOf(b, from), obj, s, 2) })
	b.Run("encode", func(b *testing.B) { benchEncode(b, raw, s, p) })
}

func benchDecode(b *testing.B, r *Reader, obj []byte, s *Shape, level int) {
	out := make([]byte, s.RawSize())
	b.SetBytes(int64(len(out)))
	for b.Loop() {
		if err := r.Decode(out, obj, s, level); err != nil {
			b.Fatal(err)
		}
	}
}

func benchEncode(b *testing.B, raw []byte, s *Shape, p *Params) {
	e := NewEncoder(newCoder(b))
	b.SetBytes(int64(len(raw)))
	var obj []byte
	var err error
	for b.Loop() {
		if obj, err = e.Encode(obj[:0], raw, s, p); err != nil {
			b.Fatal(err)
		}
	}
}
