package keys

import "testing"

func BenchmarkChain256(b *testing.B) {
	tokens := make([]uint32, 32768)
	for i := range tokens {
		tokens[i] = uint32(i * 7)
	}
	dst := make([]Key, 0, 128)
	c, err := NewChain(Key{}, 256, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.chunks = 0
		if dst, err = c.Append(dst[:0], tokens); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/chunk")
}
