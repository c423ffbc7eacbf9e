package rans_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkDecode(b *testing.B) {
	for _, c := range coders(b) {
		b.Run(c.Kernel().String(), func(b *testing.B) {
			src := gauss(rand.New(rand.NewPCG(1, 1)), 32768, 1.5, 31, 15)
			runs := one(b, src)
			stream, err := c.EncodeStream(nil, runs, src)
			require.NoError(b, err)
			dst := make([]byte, len(src))
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if err := c.DecodeStream(dst, runs, stream); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, c := range coders(b) {
		b.Run(c.Kernel().String(), func(b *testing.B) {
			src := gauss(rand.New(rand.NewPCG(1, 1)), 32768, 1.5, 31, 15)
			runs := one(b, src)
			buf := make([]byte, 0, 40000)
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if _, err := c.EncodeStream(buf, runs, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
