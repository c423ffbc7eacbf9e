package rows

import "golang.org/x/sys/cpu"

// hasWide: Ice Lake, Zen 4 and later.
func hasWide() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VBMI && x.HasAVX512VBMI2 && x.HasAVX512VPOPCNTDQ && x.HasBMI2 && x.HasPOPCNT
}

// hasBF16: Cooper Lake, Sapphire Rapids, Zen 4 and later; beside hasWide.
func hasBF16() bool { return cpu.X86.HasAVX512BF16 }

// What the .s files have. groups are of 64 elements or, where there are rows,
// which are tokens, of 64 channels, and at least 1; so are rows and blocks. Each
// function does what the method in Go does that calls it, and touches what that
// would for these counts.

//go:noescape
func scatterAVX512(dst *byte, stride int, src *byte, at *int, blocks int)

//go:noescape
func gatherAVX512(dst *byte, at *int, src *byte, stride, blocks int)

//go:noescape
func valuesAVX512(q *int16, symbols *byte, groups, zero int) (escapes int)

//go:noescape
func symbolsAVX512(dst *byte, q *int16, groups int)

//go:noescape
func contextsAVX512(ctx *byte, q *int16, class2 *byte, groups, rows int)

//go:noescape
func mergeAVX512(q *int16, digits *byte, groups int)

//go:noescape
func splitAVX512(q *int16, digits, ctx, class2 *byte, groups, rows int)

//go:noescape
func reconstructAVX512(dst *byte, stride int, q *int16, mean *float32, groups, rows int, step float32)

//go:noescape
func reconstructSymbolsAVX512(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)

//go:noescape
func rangeAVX512(symbols *byte, groups int) (low, high int)

//go:noescape
func countAVX512(hist *[countWidth]uint32, symbols *byte, blocks int, last *byte, low, eights int)

//go:noescape
func statsAVX512(sum, sq *float32, src *byte, stride, groups, rows int)

//go:noescape
func quantizeAVX512(q *int16, src *byte, stride int, mean *float32, groups, rows int, inv, limit float32) (bad uint64)

//go:noescape
func reconstructSymbolsBF16(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)

//go:noescape
func quantizeSymbolsAVX512(dst, src *byte, stride int, mean *float32, groups, rows int, inv float32) (beyond uint64)

//go:noescape
func splitBF16AVX512(exps, rests, src *byte, stride, groups, rows int)

//go:noescape
func joinBF16AVX512(dst *byte, stride int, symbols, rests *byte, groups, rows, offset int) (zeros int, greatest byte)

//go:noescape
func sumBytesAVX512(sums *uint32, src *byte, groups, rows int)

//go:noescape
func outsideAVX512(masks *uint64, b *byte, groups int, s *Set) (n int)

//go:noescape
func meanCostAVX512(mean, variance *float32, groups int, step, scale, most, floor float32) (sum uint64)

//go:noescape
func pairsAVX512(ctx, digits *byte, groups int)

//go:noescape
func zerosAVX512(masks *uint64, b *byte, groups int)
