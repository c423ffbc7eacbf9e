package rans_test

import (
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// BenchmarkTernary: refinement digits of one head of 256 tokens and 128
// channels.
func BenchmarkTernary(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	tabs := make([]rans.Ternary, 16)
	for i := range tabs {
		rans.NormalizeTernary(&tabs[i], &[3]uint32{20 + uint32(i), 40, 20})
	}
	tab := ternary(b, tabs)
	ctx, src := draw(rng, tabs, 32768)
	buf, dst := make([]byte, 0, rans.Bound(len(src))), make([]byte, len(src))
	for _, c := range coders(b) {
		var first, st rans.State
		first.Reset()
		body, err := c.EncodeTernary(nil, &first, tab, ctx, src)
		require.NoError(b, err)
		b.Run("encode/"+c.Kernel().String(), func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				st.Reset()
				if _, err := c.EncodeTernary(buf, &st, tab, ctx, src); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("pair/"+c.Kernel().String(), func(b *testing.B) {
			b.SetBytes(2 * int64(len(src)))
			other := first
			x := rans.TernaryBody{Dst: dst, Contexts: ctx, State: &st, Table: tab, Body: body}
			y := rans.TernaryBody{Dst: make([]byte, len(src)), Contexts: ctx, State: &other, Table: tab, Body: body}
			for b.Loop() {
				st, other = first, first
				if err := c.DecodeTernaryPair(&x, &y); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("encode pair/"+c.Kernel().String(), func(b *testing.B) {
			b.SetBytes(2 * int64(len(src)))
			var other rans.State
			x := rans.TernarySource{Dst: buf, State: &st, Table: tab, Contexts: ctx, Src: src}
			y := rans.TernarySource{Dst: make([]byte, 0, rans.Bound(len(src))), State: &other, Table: tab, Contexts: ctx, Src: src}
			for b.Loop() {
				st.Reset()
				other.Reset()
				x.Dst, y.Dst = x.Dst[:0], y.Dst[:0]
				if err := c.EncodeTernaryPair(&x, &y); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decode/"+c.Kernel().String(), func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				st = first
				if err := c.DecodeTernary(dst, &st, tab, ctx, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
