#include "avx512_amd64.h"
#include "textflag.h"

// As in avx512_amd64.s: 64 channels at a time.

// Words and 32-bit elements without shuffles: the even ones of 32 words are
// their register's lower halves, the odd ones its upper halves. Means are sorted
// in this way once for 64 channels, which then are done for all rows.
DATA evens<>+0(SB)/8, $0x0000000200000000
DATA evens<>+8(SB)/8, $0x0000000600000004
DATA evens<>+16(SB)/8, $0x0000000a00000008
DATA evens<>+24(SB)/8, $0x0000000e0000000c
DATA evens<>+32(SB)/8, $0x0000001200000010
DATA evens<>+40(SB)/8, $0x0000001600000014
DATA evens<>+48(SB)/8, $0x0000001a00000018
DATA evens<>+56(SB)/8, $0x0000001e0000001c
GLOBL evens<>(SB), RODATA|NOPTR, $64

// MEANS: of the 64 channels at p, even and odd of the first 32 to Z20 and Z21, of
// the others to Z22 and Z23. Z0, Z1 are scratch; Z28 has 1 in every 32 bits.
#define MEANS(p) \
	VMOVDQU64 evens<>(SB), Z0; \
	VPADDD Z28, Z0, Z1; \
	VMOVUPS (p), Z20; \
	VMOVAPS Z20, Z21; \
	VPERMT2PS 64(p), Z0, Z20; \
	VPERMT2PS 64(p), Z1, Z21; \
	VMOVUPS 128(p), Z22; \
	VMOVAPS Z22, Z23; \
	VPERMT2PS 192(p), Z0, Z22; \
	VPERMT2PS 192(p), Z1, Z23

// ROUND: 32 channels from the words in w to the bf16 at d.
//	Z26 step; Z27 0x7fff; Z28 1; Z29 the upper half, in every 32 bits
#define ROUND(w, even, odd, d) \
	VPSLLD $16, w, Z4; \
	VPSRAD $16, Z4, Z4; \
	VPSRAD $16, w, Z5; \
	VCVTDQ2PS Z4, Z4; \
	VCVTDQ2PS Z5, Z5; \
	VMULPS Z26, Z4, Z4; \
	VMULPS Z26, Z5, Z5; \
	VADDPS even, Z4, Z4; \
	VADDPS odd, Z5, Z5; \
	VPSRLD $16, Z4, Z6; \
	VPSRLD $16, Z5, Z7; \
	VPANDD Z28, Z6, Z6; \
	VPANDD Z28, Z7, Z7; \
	VPADDD Z27, Z4, Z4; \
	VPADDD Z27, Z5, Z5; \
	VPADDD Z6, Z4, Z4; \
	VPADDD Z7, Z5, Z5; \
	VPSRLD $16, Z4, Z4; \
	VPTERNLOGD $0xf8, Z29, Z5, Z4; \
	VMOVDQU64 Z4, d

#define ROUND_CONSTANTS \
	MOVL $0x7fff, AX; \
	VPBROADCASTD AX, Z27; \
	MOVL $1, AX; \
	VPBROADCASTD AX, Z28; \
	MOVL $0xffff0000, AX; \
	VPBROADCASTD AX, Z29

// func reconstructAVX512(dst *byte, stride int, q *int16, mean *float32, groups, rows int, step float32)
TEXT ·reconstructAVX512(SB), NOSPLIT, $0-52
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ q+16(FP), SI
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $7, R9 // bytes of a row of q
	VBROADCASTSS step+48(FP), Z26
	ROUND_CONSTANTS

reconstructGroup:
	MEANS(R10)
	MOVQ rows+40(FP), CX
	MOVQ DI, R12
	MOVQ SI, R13

reconstructRow:
	VMOVDQU64 (R13), Z0
	VMOVDQU64 64(R13), Z1
	ROUND(Z0, Z20, Z21, (R12))
	ROUND(Z1, Z22, Z23, 64(R12))
	ADDQ R9, R13
	ADDQ R11, R12
	DECQ CX
	JNZ reconstructRow
	ADDQ $256, R10
	ADDQ $128, DI
	ADDQ $128, SI
	DECQ BX
	JNZ reconstructGroup
	VZEROUPPER
	RET

// func reconstructSymbolsAVX512(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)
//	Z24 zero in every word
TEXT ·reconstructSymbolsAVX512(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ symbols+16(FP), SI
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9 // bytes of a row of symbols
	MOVQ zero+48(FP), AX
	VPBROADCASTW AX, Z24
	VBROADCASTSS step+56(FP), Z26
	ROUND_CONSTANTS
	XORQ DX, DX

reconstructSymbolsGroup:
	MEANS(R10)
	MOVQ rows+40(FP), CX
	MOVQ DI, R12
	MOVQ SI, R13

reconstructSymbolsRow:
	VMOVDQU64 (R13), Z0
	ZEROS(Z0, DX)
	VPMOVZXBW (R13), Z0
	VPMOVZXBW 32(R13), Z1
	VPSUBW Z24, Z0, Z0
	VPSUBW Z24, Z1, Z1
	ROUND(Z0, Z20, Z21, (R12))
	ROUND(Z1, Z22, Z23, 64(R12))
	ADDQ R9, R13
	ADDQ R11, R12
	DECQ CX
	JNZ reconstructSymbolsRow
	ADDQ $256, R10
	ADDQ $128, DI
	ADDQ $64, SI
	DECQ BX
	JNZ reconstructSymbolsGroup
	MOVQ DX, escapes+64(FP)
	VZEROUPPER
	RET

// STATS: 32 channels of one row.
//	Z29 the upper half, in every 32 bits; x, y scratch
#define STATS(v, pivotE, pivotO, sumE, sumO, sqE, sqO, x, y) \
	VMOVDQU64 v, y; \
	VPSLLD $16, y, x; \
	VPANDD Z29, y, y; \
	VSUBPS pivotE, x, x; \
	VSUBPS pivotO, y, y; \
	VADDPS x, sumE, sumE; \
	VADDPS y, sumO, sumO; \
	VMULPS x, x, x; \
	VMULPS y, y, y; \
	VADDPS x, sqE, sqE; \
	VADDPS y, sqO, sqO

#define PIVOT(v, even, odd) \
	VMOVDQU64 v, odd; \
	VPSLLD $16, odd, even; \
	VPANDD Z29, odd, odd

// Of even and odd channels, the first 16 and the others: for VPERMI2PS.
DATA firsts<>+0(SB)/8, $0x0000001000000000
DATA firsts<>+8(SB)/8, $0x0000001100000001
DATA firsts<>+16(SB)/8, $0x0000001200000002
DATA firsts<>+24(SB)/8, $0x0000001300000003
DATA firsts<>+32(SB)/8, $0x0000001400000004
DATA firsts<>+40(SB)/8, $0x0000001500000005
DATA firsts<>+48(SB)/8, $0x0000001600000006
DATA firsts<>+56(SB)/8, $0x0000001700000007
GLOBL firsts<>(SB), RODATA|NOPTR, $64

DATA others<>+0(SB)/8, $0x0000001800000008
DATA others<>+8(SB)/8, $0x0000001900000009
DATA others<>+16(SB)/8, $0x0000001a0000000a
DATA others<>+24(SB)/8, $0x0000001b0000000b
DATA others<>+32(SB)/8, $0x0000001c0000000c
DATA others<>+40(SB)/8, $0x0000001d0000000d
DATA others<>+48(SB)/8, $0x0000001e0000000e
DATA others<>+56(SB)/8, $0x0000001f0000000f
GLOBL others<>(SB), RODATA|NOPTR, $64

// IN_ORDER: the 32 channels of even and odd to p.
//	Z30 firsts, Z31 others
#define IN_ORDER(even, odd, p) \
	VMOVDQA64 Z30, Z0; \
	VMOVDQA64 Z31, Z1; \
	VPERMI2PS odd, even, Z0; \
	VPERMI2PS odd, even, Z1; \
	VMOVUPS Z0, 0+p; \
	VMOVUPS Z1, 64+p

// func statsAVX512(sum, sq *float32, src *byte, stride, groups, rows int)
//
// 64 channels over all rows, then the next 64. Rows lie apart, which no prefetcher
// of hardware follows well: those 16 further on are asked for, with the 64 channels
// beside, which come next.
//	Z16-Z19 sums of even and odd channels; Z20-Z23 of squares; Z24-Z27 pivots
TEXT ·statsAVX512(SB), NOSPLIT, $0-48
	MOVQ sum+0(FP), DI
	MOVQ sq+8(FP), R10
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R11
	MOVQ groups+32(FP), BX
	MOVL $0xffff0000, AX
	VPBROADCASTD AX, Z29
	VMOVDQU64 firsts<>(SB), Z30
	VMOVDQU64 others<>(SB), Z31

statsGroup:
	PIVOT((SI), Z24, Z25)
	PIVOT(64(SI), Z26, Z27)
	VPXORQ Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17
	VPXORQ Z18, Z18, Z18
	VPXORQ Z19, Z19, Z19
	VPXORQ Z20, Z20, Z20
	VPXORQ Z21, Z21, Z21
	VPXORQ Z22, Z22, Z22
	VPXORQ Z23, Z23, Z23
	MOVQ rows+40(FP), CX
	MOVQ SI, AX
	MOVQ R11, DX
	SHLQ $4, DX
	ADDQ SI, DX

statsRow:
	DECQ CX
	JZ statsDone
	ADDQ R11, AX
	ADDQ R11, DX
	PREFETCHT0 (DX)
	PREFETCHT0 64(DX)
	PREFETCHT0 128(DX)
	PREFETCHT0 192(DX)
	STATS((AX), Z24, Z25, Z16, Z17, Z20, Z21, Z0, Z1)
	STATS(64(AX), Z26, Z27, Z18, Z19, Z22, Z23, Z2, Z3)
	JMP statsRow

statsDone:
	IN_ORDER(Z16, Z17, 0(DI))
	IN_ORDER(Z18, Z19, 128(DI))
	IN_ORDER(Z20, Z21, 0(R10))
	IN_ORDER(Z22, Z23, 128(R10))
	ADDQ $256, DI
	ADDQ $256, R10
	ADDQ $128, SI
	DECQ BX
	JNZ statsGroup
	VZEROUPPER
	RET

// QUANTIZE: 32 channels from the bf16 at v to the words at q.
//	Z24 accumulates magnitudes, as the unsigned integers that order them too
//	Z25 all bits but the sign's; Z26 inv; Z29 the upper half, in every 32 bits
#define QUANTIZE(v, even, odd, q) \
	VMOVDQU64 v, Z5; \
	VPSLLD $16, Z5, Z4; \
	VPANDD Z29, Z5, Z5; \
	VSUBPS even, Z4, Z4; \
	VSUBPS odd, Z5, Z5; \
	VMULPS Z26, Z4, Z4; \
	VMULPS Z26, Z5, Z5; \
	VPANDD Z25, Z4, Z6; \
	VPANDD Z25, Z5, Z7; \
	VPMAXUD Z6, Z24, Z24; \
	VPMAXUD Z7, Z24, Z24; \
	VCVTPS2DQ Z4, Z4; \
	VCVTPS2DQ Z5, Z5; \
	VPSLLD $16, Z5, Z5; \
	VPTERNLOGD $0xd8, Z29, Z5, Z4; \
	VMOVDQU64 Z4, q

// func quantizeAVX512(q *int16, src *byte, stride int, mean *float32, groups, rows int, inv, limit float32) (bad uint64)
TEXT ·quantizeAVX512(SB), NOSPLIT, $0-64
	MOVQ q+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), R11
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $7, R9 // bytes of a row of q
	VBROADCASTSS inv+48(FP), Z26
	VPXORQ Z24, Z24, Z24
	MOVL $0x7fffffff, AX
	VPBROADCASTD AX, Z25
	MOVL $1, AX
	VPBROADCASTD AX, Z28
	MOVL $0xffff0000, AX
	VPBROADCASTD AX, Z29

quantizeGroup:
	MEANS(R10)
	MOVQ rows+40(FP), CX
	MOVQ SI, R12
	MOVQ DI, R13

quantizeRow:
	QUANTIZE((R12), Z20, Z21, (R13))
	QUANTIZE(64(R12), Z22, Z23, 64(R13))
	ADDQ R11, R12
	ADDQ R9, R13
	DECQ CX
	JNZ quantizeRow
	ADDQ $256, R10
	ADDQ $128, SI
	ADDQ $128, DI
	DECQ BX
	JNZ quantizeGroup
	// NaN and infinities are above every limit.
	VBROADCASTSS limit+52(FP), Z0
	VPCMPUD $5, Z0, Z24, K1
	KMOVW K1, AX
	MOVQ AX, bad+56(FP)
	VZEROUPPER
	RET

// Of 64 values as two packs leave them, the places in order: a pack takes the
// even ones of a quarter first, then its odd ones; two packs, quarter by quarter.
DATA inOrder<>+0(SB)/8, $0x0703060205010400
DATA inOrder<>+8(SB)/8, $0x1713161215111410
DATA inOrder<>+16(SB)/8, $0x2723262225212420
DATA inOrder<>+24(SB)/8, $0x3733363235313430
DATA inOrder<>+32(SB)/8, $0x0f0b0e0a0d090c08
DATA inOrder<>+40(SB)/8, $0x1f1b1e1a1d191c18
DATA inOrder<>+48(SB)/8, $0x2f2b2e2a2d292c28
DATA inOrder<>+56(SB)/8, $0x3f3b3e3a3d393c38
GLOBL inOrder<>(SB), RODATA|NOPTR, $64

// QUANTIZE_PACKED: 32 channels from the bf16 at v to words in q, which saturate; x
// is scratch. Z24 accumulates magnitudes; NaN has the greatest.
#define QUANTIZE_PACKED(v, even, odd, q, x) \
	VMOVDQU64 v, x; \
	VPSLLD $16, x, q; \
	VPANDD Z29, x, x; \
	VSUBPS even, q, q; \
	VSUBPS odd, x, x; \
	VMULPS Z26, q, q; \
	VMULPS Z26, x, x; \
	VCVTPS2DQ q, q; \
	VCVTPS2DQ x, x; \
	VPACKSSDW x, q, q; \
	VPABSW q, x; \
	VPMAXUW x, Z24, Z24

// func quantizeSymbolsAVX512(dst, src *byte, stride int, mean *float32, groups, rows int, inv float32) (beyond uint64)
//
// The values plus 128, where all of them are -127..127, else anything, and beyond
// is not 0.
//	Z25 inOrder; Z27 128 in every byte; Z26, Z29 as in QUANTIZE
TEXT ·quantizeSymbolsAVX512(SB), NOSPLIT, $0-64
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), R11
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9 // bytes of a row of dst
	VBROADCASTSS inv+48(FP), Z26
	VPXORQ Z24, Z24, Z24
	VMOVDQU64 inOrder<>(SB), Z25
	MOVL $0x80808080, AX
	VPBROADCASTD AX, Z27
	MOVL $1, AX
	VPBROADCASTD AX, Z28
	MOVL $0xffff0000, AX
	VPBROADCASTD AX, Z29

quantizeSymbolsGroup:
	MEANS(R10)
	MOVQ rows+40(FP), CX
	MOVQ SI, R12
	MOVQ DI, R13

quantizeSymbolsRow:
	QUANTIZE_PACKED((R12), Z20, Z21, Z0, Z1)
	QUANTIZE_PACKED(64(R12), Z22, Z23, Z2, Z3)
	VPACKSSWB Z2, Z0, Z0
	VPXORQ Z27, Z0, Z0
	VPERMB Z0, Z25, Z0
	VMOVDQU64 Z0, (R13)
	ADDQ R11, R12
	ADDQ R9, R13
	DECQ CX
	JNZ quantizeSymbolsRow
	ADDQ $256, R10
	ADDQ $128, SI
	ADDQ $64, DI
	DECQ BX
	JNZ quantizeSymbolsGroup
	// Any magnitude of 128 or more has one of these bits.
	MOVL $0xff80ff80, AX
	VPBROADCASTD AX, Z0
	VPTESTMW Z0, Z24, K1
	KMOVD K1, AX
	MOVQ AX, beyond+56(FP)
	VZEROUPPER
	RET

// BF16: Z0 and Z2 get the nearest bf16 of the 32 bits in Z0 and Z1, and in Z2 and
// Z3: VCVTNE2PS2BF16, which the assembler does not know. It takes denormals for
// 0; there are none: what is not 0 is at least a multiple of 2^-103.
#define BF16 \
	LONG $0x4877f262; WORD $0xc072; \
	LONG $0x4867f262; WORD $0xd272

// FLOATS: of 16 symbols at p, step x (symbol - zero) + mean. Products are exact,
// so that a fused addition rounds like a separate one.
#define FLOATS(p, mean, z) \
	VPMOVZXBD p, z; \
	VPSUBD Z24, z, z; \
	VCVTDQ2PS z, z; \
	VFMADD213PS mean, Z26, z

// func reconstructSymbolsBF16(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)
//
// reconstructSymbolsAVX512 for CPUs with AVX512_BF16. It waits for memory more than
// for anything else: lines 32 rows ahead are asked for, and, as in statsAVX512, the
// 64 channels beside.
//	Z20-Z23 means of 64 channels; Z24 zero in every 32 bits; Z26 step
TEXT ·reconstructSymbolsBF16(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ symbols+16(FP), SI
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9 // bytes of a row of symbols
	MOVQ zero+48(FP), AX
	VPBROADCASTD AX, Z24
	VBROADCASTSS step+56(FP), Z26
	XORQ DX, DX

bf16Group:
	VMOVUPS (R10), Z20
	VMOVUPS 64(R10), Z21
	VMOVUPS 128(R10), Z22
	VMOVUPS 192(R10), Z23
	MOVQ rows+40(FP), CX
	MOVQ DI, R12
	MOVQ SI, R13
	MOVQ R11, AX
	SHLQ $5, AX
	ADDQ DI, AX

bf16Row:
	OWN(R11)
	VMOVDQU64 (R13), Z4
	ZEROS(Z4, DX)
	FLOATS((R13), Z20, Z0)
	FLOATS(16(R13), Z21, Z1)
	FLOATS(32(R13), Z22, Z2)
	FLOATS(48(R13), Z23, Z3)
	BF16
	VMOVDQU64 Z0, (R12)
	VMOVDQU64 Z2, 64(R12)
	ADDQ R9, R13
	ADDQ R11, R12
	DECQ CX
	JNZ bf16Row
	ADDQ $256, R10
	ADDQ $128, DI
	ADDQ $64, SI
	DECQ BX
	JNZ bf16Group
	MOVQ DX, escapes+64(FP)
	VZEROUPPER
	RET
