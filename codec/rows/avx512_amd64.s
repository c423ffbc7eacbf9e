#include "avx512_amd64.h"
#include "textflag.h"

// Rows of channels, 64 at a time. Register plan of every function:
//
//	DI, SI   what is written and read first; they move along
//	CX       rows or groups of 64 elements that are left
//	BX       the channel of the row, counted in groups or in bytes
//	Z16-Z31  constants, named in the function's head
//
// All masks are taken per element; nothing is read or written beyond the
// elements that the arguments cover.

// A byte has a place of 8 bits: 4 of its register and 4 within the quarter of it.
// INTERLEAVE of the registers i and i + 8 into 2 i and 2 i + 1, for the eight i,
// rotates these bits by one; four times exchange register and place in the
// quarter. So 16 registers, each with 64 tokens of one channel, become 16 with 4
// tokens (k, 16 + k, 32 + k, 48 + k) of 16 channels, and the other way round.
#define INTERLEAVE(a, b, x, y) \
	VPUNPCKLBW b, a, x; \
	VPUNPCKHBW b, a, y

// From Z0-Z15 to Z16-Z31, and back.
#define ROTATE_UP \
	INTERLEAVE(Z0, Z8, Z16, Z17); \
	INTERLEAVE(Z1, Z9, Z18, Z19); \
	INTERLEAVE(Z2, Z10, Z20, Z21); \
	INTERLEAVE(Z3, Z11, Z22, Z23); \
	INTERLEAVE(Z4, Z12, Z24, Z25); \
	INTERLEAVE(Z5, Z13, Z26, Z27); \
	INTERLEAVE(Z6, Z14, Z28, Z29); \
	INTERLEAVE(Z7, Z15, Z30, Z31)

#define ROTATE_DOWN \
	INTERLEAVE(Z16, Z24, Z0, Z1); \
	INTERLEAVE(Z17, Z25, Z2, Z3); \
	INTERLEAVE(Z18, Z26, Z4, Z5); \
	INTERLEAVE(Z19, Z27, Z6, Z7); \
	INTERLEAVE(Z20, Z28, Z8, Z9); \
	INTERLEAVE(Z21, Z29, Z10, Z11); \
	INTERLEAVE(Z22, Z30, Z12, Z13); \
	INTERLEAVE(Z23, Z31, Z14, Z15)

#define TRANSPOSE \
	ROTATE_UP; \
	ROTATE_DOWN; \
	ROTATE_UP; \
	ROTATE_DOWN

// The four tokens of a register are at DX, R10, R11 and R12; R8 is the stride.
#define STORE_TOKENS(z, x) \
	VMOVDQU x, (DX); \
	VEXTRACTI32X4 $1, z, (R10); \
	VEXTRACTI32X4 $2, z, (R11); \
	VEXTRACTI32X4 $3, z, (R12); \
	ADDQ R8, DX; \
	ADDQ R8, R10; \
	ADDQ R8, R11; \
	ADDQ R8, R12

#define LOAD_TOKENS(z, x) \
	VMOVDQU (DX), x; \
	VINSERTI32X4 $1, (R10), z, z; \
	VINSERTI32X4 $2, (R11), z, z; \
	VINSERTI32X4 $3, (R12), z, z; \
	ADDQ R8, DX; \
	ADDQ R8, R10; \
	ADDQ R8, R11; \
	ADDQ R8, R12

// The places of 64 tokens that begin at p, 16 from one to the next.
#define TOKENS(p) \
	MOVQ R8, AX; \
	SHLQ $4, AX; \
	MOVQ p, DX; \
	LEAQ (DX)(AX*1), R10; \
	LEAQ (DX)(AX*2), R11; \
	LEAQ (R10)(AX*2), R12

// func scatterAVX512(dst *byte, stride int, src *byte, at *int, blocks int)
//
// 16 channels of 64 blocks tokens: channel i from src[at[i]] on, to dst[i] and
// every stride behind it.
TEXT ·scatterAVX512(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R8
	MOVQ src+16(FP), SI
	MOVQ at+24(FP), R9
	MOVQ blocks+32(FP), CX

#define LOAD_CHANNELS \
	MOVQ 0(R9), AX; VMOVDQU64 (SI)(AX*1), Z0; \
	MOVQ 8(R9), AX; VMOVDQU64 (SI)(AX*1), Z1; \
	MOVQ 16(R9), AX; VMOVDQU64 (SI)(AX*1), Z2; \
	MOVQ 24(R9), AX; VMOVDQU64 (SI)(AX*1), Z3; \
	MOVQ 32(R9), AX; VMOVDQU64 (SI)(AX*1), Z4; \
	MOVQ 40(R9), AX; VMOVDQU64 (SI)(AX*1), Z5; \
	MOVQ 48(R9), AX; VMOVDQU64 (SI)(AX*1), Z6; \
	MOVQ 56(R9), AX; VMOVDQU64 (SI)(AX*1), Z7; \
	MOVQ 64(R9), AX; VMOVDQU64 (SI)(AX*1), Z8; \
	MOVQ 72(R9), AX; VMOVDQU64 (SI)(AX*1), Z9; \
	MOVQ 80(R9), AX; VMOVDQU64 (SI)(AX*1), Z10; \
	MOVQ 88(R9), AX; VMOVDQU64 (SI)(AX*1), Z11; \
	MOVQ 96(R9), AX; VMOVDQU64 (SI)(AX*1), Z12; \
	MOVQ 104(R9), AX; VMOVDQU64 (SI)(AX*1), Z13; \
	MOVQ 112(R9), AX; VMOVDQU64 (SI)(AX*1), Z14; \
	MOVQ 120(R9), AX; VMOVDQU64 (SI)(AX*1), Z15

scatterBlock:
	LOAD_CHANNELS
	TRANSPOSE
	TOKENS(DI)
	STORE_TOKENS(Z0, X0)
	STORE_TOKENS(Z1, X1)
	STORE_TOKENS(Z2, X2)
	STORE_TOKENS(Z3, X3)
	STORE_TOKENS(Z4, X4)
	STORE_TOKENS(Z5, X5)
	STORE_TOKENS(Z6, X6)
	STORE_TOKENS(Z7, X7)
	STORE_TOKENS(Z8, X8)
	STORE_TOKENS(Z9, X9)
	STORE_TOKENS(Z10, X10)
	STORE_TOKENS(Z11, X11)
	STORE_TOKENS(Z12, X12)
	STORE_TOKENS(Z13, X13)
	STORE_TOKENS(Z14, X14)
	STORE_TOKENS(Z15, X15)
	MOVQ R8, AX
	SHLQ $6, AX
	ADDQ AX, DI
	ADDQ $64, SI
	DECQ CX
	JNZ scatterBlock
	VZEROUPPER
	RET

// func gatherAVX512(dst *byte, at *int, src *byte, stride, blocks int)
//
// The reverse.
TEXT ·gatherAVX512(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ at+8(FP), R9
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R8
	MOVQ blocks+32(FP), CX

#define STORE_CHANNELS \
	MOVQ 0(R9), AX; VMOVDQU64 Z0, (DI)(AX*1); \
	MOVQ 8(R9), AX; VMOVDQU64 Z1, (DI)(AX*1); \
	MOVQ 16(R9), AX; VMOVDQU64 Z2, (DI)(AX*1); \
	MOVQ 24(R9), AX; VMOVDQU64 Z3, (DI)(AX*1); \
	MOVQ 32(R9), AX; VMOVDQU64 Z4, (DI)(AX*1); \
	MOVQ 40(R9), AX; VMOVDQU64 Z5, (DI)(AX*1); \
	MOVQ 48(R9), AX; VMOVDQU64 Z6, (DI)(AX*1); \
	MOVQ 56(R9), AX; VMOVDQU64 Z7, (DI)(AX*1); \
	MOVQ 64(R9), AX; VMOVDQU64 Z8, (DI)(AX*1); \
	MOVQ 72(R9), AX; VMOVDQU64 Z9, (DI)(AX*1); \
	MOVQ 80(R9), AX; VMOVDQU64 Z10, (DI)(AX*1); \
	MOVQ 88(R9), AX; VMOVDQU64 Z11, (DI)(AX*1); \
	MOVQ 96(R9), AX; VMOVDQU64 Z12, (DI)(AX*1); \
	MOVQ 104(R9), AX; VMOVDQU64 Z13, (DI)(AX*1); \
	MOVQ 112(R9), AX; VMOVDQU64 Z14, (DI)(AX*1); \
	MOVQ 120(R9), AX; VMOVDQU64 Z15, (DI)(AX*1)

gatherBlock:
	TOKENS(SI)
	LOAD_TOKENS(Z0, X0)
	LOAD_TOKENS(Z1, X1)
	LOAD_TOKENS(Z2, X2)
	LOAD_TOKENS(Z3, X3)
	LOAD_TOKENS(Z4, X4)
	LOAD_TOKENS(Z5, X5)
	LOAD_TOKENS(Z6, X6)
	LOAD_TOKENS(Z7, X7)
	LOAD_TOKENS(Z8, X8)
	LOAD_TOKENS(Z9, X9)
	LOAD_TOKENS(Z10, X10)
	LOAD_TOKENS(Z11, X11)
	LOAD_TOKENS(Z12, X12)
	LOAD_TOKENS(Z13, X13)
	LOAD_TOKENS(Z14, X14)
	LOAD_TOKENS(Z15, X15)
	TRANSPOSE
	STORE_CHANNELS
	MOVQ R8, AX
	SHLQ $6, AX
	ADDQ AX, SI
	ADDQ $64, DI
	DECQ CX
	JNZ gatherBlock
	VZEROUPPER
	RET

// func valuesAVX512(q *int16, symbols *byte, groups, zero int) (escapes int)
//	Z16 zero in every word
TEXT ·valuesAVX512(SB), NOSPLIT, $0-40
	MOVQ q+0(FP), DI
	MOVQ symbols+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ zero+24(FP), AX
	VPBROADCASTW AX, Z16
	XORQ DX, DX

valuesGroup:
	VMOVDQU64 (SI), Z0
	ZEROS(Z0, DX)
	VPMOVZXBW (SI), Z0
	VPMOVZXBW 32(SI), Z1
	VPSUBW Z16, Z0, Z0
	VPSUBW Z16, Z1, Z1
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, 64(DI)
	ADDQ $64, SI
	ADDQ $128, DI
	DECQ CX
	JNZ valuesGroup
	MOVQ DX, escapes+32(FP)
	VZEROUPPER
	RET

// SYMBOLS: 32 words at q plus 128 as bytes at d; those beyond 0..255 as 0.
#define SYMBOLS(q, d) \
	VPADDW q, Z16, Z0; \
	VPCMPUW $2, Z17, Z0, K1; \
	VPMOVWB Z0, Y0; \
	VMOVDQU8.Z Y0, K1, Y0; \
	VMOVDQU Y0, d

// func symbolsAVX512(dst *byte, q *int16, groups int)
//	Z16 128, Z17 255, in every word
TEXT ·symbolsAVX512(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ q+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVL $128, AX
	VPBROADCASTW AX, Z16
	MOVL $255, AX
	VPBROADCASTW AX, Z17

symbolsGroup:
	SYMBOLS((SI), (DI))
	SYMBOLS(64(SI), 32(DI))
	ADDQ $128, SI
	ADDQ $64, DI
	DECQ CX
	JNZ symbolsGroup
	VZEROUPPER
	RET

// func contextsAVX512(ctx *byte, q *int16, class2 *byte, groups, rows int)
//	Z16 -1 in every byte
TEXT ·contextsAVX512(SB), NOSPLIT, $0-40
	MOVQ ctx+0(FP), DI
	MOVQ q+8(FP), SI
	MOVQ class2+16(FP), R10
	MOVQ groups+24(FP), R9
	SHLQ $6, R9
	MOVQ rows+32(FP), CX
	VPTERNLOGD $0xff, Z16, Z16, Z16

contextsRow:
	XORQ BX, BX

contextsGroup:
	VMOVDQU64 (SI)(BX*2), Z0
	VMOVDQU64 64(SI)(BX*2), Z1
	VPTESTMW Z0, Z0, K1
	VPTESTMW Z1, Z1, K2
	KUNPCKDQ K1, K2, K3
	VMOVDQU64 (R10)(BX*1), Z2
	VPSUBB Z16, Z2, K3, Z2
	VMOVDQU64 Z2, (DI)(BX*1)
	ADDQ $64, BX
	CMPQ BX, R9
	JLT contextsGroup
	ADDQ R9, DI
	LEAQ (SI)(R9*2), SI
	DECQ CX
	JNZ contextsRow
	VZEROUPPER
	RET

// MERGE: q = 3 q + d - 1, or 3 q - (d - 1) where q is negative, of the 32 words
// of q and the bytes at d.
//	Z16 -1 in every word; Z17 0
#define MERGE(d, q) \
	VPMOVZXBW d, Z2; \
	VPADDW Z16, Z2, Z2; \
	VPMOVW2M q, K1; \
	VPSUBW Z2, Z17, K1, Z2; \
	VPADDW q, Z2, Z2; \
	VPADDW q, q, q; \
	VPADDW Z2, q, q

// func mergeAVX512(q *int16, digits *byte, groups int)
TEXT ·mergeAVX512(SB), NOSPLIT, $0-24
	MOVQ q+0(FP), DI
	MOVQ digits+8(FP), SI
	MOVQ groups+16(FP), CX
	VPTERNLOGD $0xff, Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17

mergeGroup:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 64(DI), Z1
	MERGE((SI), Z0)
	MERGE(32(SI), Z1)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, 64(DI)
	ADDQ $64, SI
	ADDQ $128, DI
	DECQ CX
	JNZ mergeGroup
	VZEROUPPER
	RET

// SPLIT: of the 32 words at q, the coarser values in k, also stored, and the
// digits' symbols as bytes at d.
//
// floor((v + 1) / 3) is (v + 1 + 3 x 10922) / 3 - 10922 in unsigned arithmetic,
// and a division by 3 of 16 bits is exact as a product with (2^17 + 1) / 3.
//	Z16 1; Z17 0; Z18 32767; Z19 43691; Z20 10922, in every word
#define SPLIT(q, k, d) \
	VMOVDQU64 q, Z4; \
	VPADDW Z18, Z4, k; \
	VPMULHUW Z19, k, k; \
	VPSRLW $1, k, k; \
	VPSUBW Z20, k, k; \
	VMOVDQU64 k, q; \
	VPSUBW k, Z4, Z4; \
	VPSUBW k, Z4, Z4; \
	VPSUBW k, Z4, Z4; \
	VPMOVW2M k, K1; \
	VPSUBW Z4, Z17, K1, Z4; \
	VPADDW Z16, Z4, Z4; \
	VPMOVWB Z4, Y4; \
	VMOVDQU Y4, d

// func splitAVX512(q *int16, digits, ctx, class2 *byte, groups, rows int)
TEXT ·splitAVX512(SB), NOSPLIT, $0-48
	MOVQ q+0(FP), SI
	MOVQ digits+8(FP), DI
	MOVQ ctx+16(FP), R11
	MOVQ class2+24(FP), R10
	MOVQ groups+32(FP), R9
	SHLQ $6, R9
	MOVQ rows+40(FP), CX
	MOVL $1, AX
	VPBROADCASTW AX, Z16
	VPXORQ Z17, Z17, Z17
	MOVL $32767, AX
	VPBROADCASTW AX, Z18
	MOVL $43691, AX
	VPBROADCASTW AX, Z19
	MOVL $10922, AX
	VPBROADCASTW AX, Z20
	VPTERNLOGD $0xff, Z21, Z21, Z21 // -1 in every byte

splitRow:
	XORQ BX, BX

splitGroup:
	SPLIT((SI)(BX*2), Z0, (DI)(BX*1))
	SPLIT(64(SI)(BX*2), Z1, 32(DI)(BX*1))
	VPTESTMW Z0, Z0, K1
	VPTESTMW Z1, Z1, K2
	KUNPCKDQ K1, K2, K3
	VMOVDQU64 (R10)(BX*1), Z2
	VPSUBB Z21, Z2, K3, Z2
	VMOVDQU64 Z2, (R11)(BX*1)
	ADDQ $64, BX
	CMPQ BX, R9
	JLT splitGroup
	ADDQ R9, DI
	ADDQ R9, R11
	LEAQ (SI)(R9*2), SI
	DECQ CX
	JNZ splitRow
	VZEROUPPER
	RET

// func pairsAVX512(ctx, digits *byte, groups int)
TEXT ·pairsAVX512(SB), NOSPLIT, $0-24
	MOVQ ctx+0(FP), DI
	MOVQ digits+8(FP), SI
	MOVQ groups+16(FP), CX

pairsGroup:
	VMOVDQU64 (DI), Z0
	VPADDB (SI), Z0, Z1
	VPADDB Z0, Z0, Z0
	VPADDB Z1, Z0, Z0
	VMOVDQU64 Z0, (DI)
	ADDQ $64, DI
	ADDQ $64, SI
	DECQ CX
	JNZ pairsGroup
	VZEROUPPER
	RET
