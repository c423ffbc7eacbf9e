package rows

import "golang.org/x/sys/cpu"

// hasAVX2: Haswell, Zen and later.
func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasPOPCNT }

// What the .s files have for CPUs without AVX-512, as wide_amd64.go says it, but for
// groups: they are of 32 channels, 8 in meanCostAVX2, 64 bytes in outsideAVX2 and zerosAVX2; blocks
// are of 32 tokens.

//go:noescape
func scatterAVX2(dst *byte, stride int, src *byte, at *int, blocks int)

//go:noescape
func gatherAVX2(dst *byte, at *int, src *byte, stride, blocks int)

//go:noescape
func reconstructAVX2(dst *byte, stride int, q *int16, mean *float32, groups, rows int, step float32)

//go:noescape
func reconstructSymbolsAVX2(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)

//go:noescape
func statsAVX2(sum, sq *float32, src *byte, stride, groups, rows int)

//go:noescape
func quantizeAVX2(q *int16, src *byte, stride int, mean *float32, groups, rows int, inv, limit float32) (bad uint64)

//go:noescape
func quantizeSymbolsAVX2(dst, src *byte, stride int, mean *float32, groups, rows int, inv float32) (beyond uint64)

//go:noescape
func splitBF16AVX2(exps, rests, src *byte, stride, groups, rows int)

//go:noescape
func joinBF16AVX2(dst *byte, stride int, symbols, rests *byte, groups, rows, offset int) (zeros int, greatest byte)

//go:noescape
func sumBytesAVX2(sums *uint32, src *byte, groups, rows int)

//go:noescape
func meanCostAVX2(mean, variance *float32, groups int, step, scale, most, floor float32) (sum uint64)

//go:noescape
func outsideAVX2(masks *uint64, b *byte, groups int, s *Set) (n int)

//go:noescape
func zerosAVX2(masks *uint64, b *byte, groups int)
