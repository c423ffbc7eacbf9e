//go:build unix

package rows_test

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/larderkv/larder/codec/rows"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fenced returns n elements that no access leaves unpunished: at the end of their
// pages, or at the beginning.
func fenced[T any](t *testing.T, n int, end bool) []T {
	page := unix.Getpagesize()
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	inner := (size + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, inner+2*page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	require.NoError(t, unix.Mprotect(b[page:page+inner], unix.PROT_READ|unix.PROT_WRITE))
	at := page
	if end {
		at += inner - size
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[at])), n)
}

// No function reads or writes beyond its slices.
func TestFences(t *testing.T) {
	for _, dims := range []int{16, 32, 64, 96, 128} {
		for _, tokens := range []int{1, 31, 32, 33, 64, 100} {
			for _, end := range []bool{false, true} {
				fences(t, dims, tokens, end)
			}
		}
	}
}

func fences(t *testing.T, dims, tokens int, end bool) {
	rng := rand.New(rand.NewPCG(uint64(dims), uint64(tokens)))
	n, stride := dims*tokens, 2*dims+6
	raw, q := fenced[byte](t, (tokens-1)*stride+2*dims, end), fenced[int16](t, n, end)
	symbols, bytes, third := fenced[byte](t, n, end), fenced[byte](t, n, end), fenced[byte](t, n, end)
	sum, sq, sums := fenced[float32](t, dims, end), fenced[float32](t, dims, end), fenced[uint32](t, dims, end)
	masks, class2 := fenced[uint64](t, (n+63)/64, end), fenced[byte](t, dims, end)
	var m rows.ClassMap
	classOf := make([]uint8, dims)
	for i := range classOf {
		classOf[i] = uint8(rng.IntN(3))
	}
	m.Build(classOf, 3)
	arranged := fenced[byte](t, m.Size(tokens), end)
	copy(raw, bf16s(rng, stride, tokens, dims, false))
	var hist [256]uint32
	for _, o := range all() {
		o.StatsBF16(sum, sq, raw, stride, tokens)
		o.MeanCost(sum, sq, 0.25, 2, 7, 0.01)
		clear(sum)
		o.QuantizeBF16(q, raw, stride, tokens, sum, 0.5, 32767)
		o.QuantizeSymbolsBF16(symbols, q, raw, stride, tokens, sum, 0.5, 32767)
		o.Gather(arranged, symbols, &m, tokens)
		o.Count(&hist, arranged)
		o.Outside(masks, symbols, &rows.Set{})
		o.Scatter(symbols, arranged, &m, tokens)
		o.ScatterTokens(symbols, arranged, &m, tokens, 0, tokens)
		o.Zeros(masks, symbols)
		o.ReconstructSymbolsBF16(raw, stride, tokens, symbols, 128, sum, 0.25)
		o.ReconstructBF16(raw, stride, tokens, q, sum, 0.25)
		o.SplitBF16(symbols, bytes, raw, stride, tokens, dims)
		o.SumBytes(sums, symbols)
		o.JoinBF16(raw, stride, tokens, dims, symbols, bytes, 1)
		o.Values(q, symbols, 128)
		o.Symbols(symbols, q)
		o.Split(q, bytes, third, class2)
		o.Contexts(third, q, class2)
		o.Merge(q, bytes)
		o.Pairs(third, bytes)
	}
}
