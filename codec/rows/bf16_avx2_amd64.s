#include "textflag.h"

// As in bf16_avx512_amd64.s, with AVX2: 32 channels at a time.

// CONSTANT: every 32 bits of y are value.
#define CONSTANT(value, x, y) \
	MOVL $value, AX; \
	VMOVD AX, x; \
	VPBROADCASTD x, y

// EVEN_ODD: of the 16 channels at o(p); Y0-Y3 are scratch.
#define EVEN_ODD(o, p, even, odd) \
	VMOVUPS (o+0)(p), Y0; \
	VMOVUPS (o+32)(p), Y1; \
	VPERM2F128 $0x20, Y1, Y0, Y2; \
	VPERM2F128 $0x31, Y1, Y0, Y3; \
	VSHUFPS $0x88, Y3, Y2, even; \
	VSHUFPS $0xdd, Y3, Y2, odd

// MEANS: of the 32 channels at R10, even and odd of the first 16 to Y8 and Y9, of the
// others to Y10 and Y11.
#define MEANS \
	EVEN_ODD(0, R10, Y8, Y9); \
	EVEN_ODD(64, R10, Y10, Y11)

// ROUND: 16 channels from the words in Y0 to the bf16 at d; Y1-Y3 are scratch.
//	Y12 1; Y13 0x7fff; Y14 step, in every 32 bits
#define ROUND(even, odd, d) \
	VPSLLD $16, Y0, Y1; \
	VPSRAD $16, Y1, Y1; \
	VPSRAD $16, Y0, Y0; \
	VCVTDQ2PS Y1, Y1; \
	VCVTDQ2PS Y0, Y0; \
	VMULPS Y14, Y1, Y1; \
	VMULPS Y14, Y0, Y0; \
	VADDPS even, Y1, Y1; \
	VADDPS odd, Y0, Y0; \
	VPSRLD $16, Y1, Y2; \
	VPSRLD $16, Y0, Y3; \
	VPAND Y12, Y2, Y2; \
	VPAND Y12, Y3, Y3; \
	VPADDD Y13, Y1, Y1; \
	VPADDD Y13, Y0, Y0; \
	VPADDD Y2, Y1, Y1; \
	VPADDD Y3, Y0, Y0; \
	VPSRLD $16, Y1, Y1; \
	VPBLENDW $0xaa, Y0, Y1, Y1; \
	VMOVDQU Y1, d

// func reconstructAVX2(dst *byte, stride int, q *int16, mean *float32, groups, rows int, step float32)
TEXT ·reconstructAVX2(SB), NOSPLIT, $0-52
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ q+16(FP), SI
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9 // bytes of a row of q
	VBROADCASTSS step+48(FP), Y14
	CONSTANT(0x7fff, X13, Y13)
	CONSTANT(1, X12, Y12)

reconstructGroup:
	MEANS
	MOVQ rows+40(FP), CX
	MOVQ DI, R12
	MOVQ SI, R13

reconstructRow:
	VMOVDQU (R13), Y0
	ROUND(Y8, Y9, (R12))
	VMOVDQU 32(R13), Y0
	ROUND(Y10, Y11, 32(R12))
	ADDQ R9, R13
	ADDQ R11, R12
	DECQ CX
	JNZ reconstructRow
	ADDQ $128, R10
	ADDQ $64, DI
	ADDQ $64, SI
	DECQ BX
	JNZ reconstructGroup
	VZEROUPPER
	RET

// func reconstructSymbolsAVX2(dst *byte, stride int, symbols *byte, mean *float32, groups, rows, zero int, step float32) (escapes int)
//
// Lines 32 rows ahead are asked for.
//	Y6 0; Y7 zero in every word
TEXT ·reconstructSymbolsAVX2(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ symbols+16(FP), SI
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $5, R9 // bytes of a row of symbols
	MOVQ zero+48(FP), AX
	VMOVD AX, X7
	VPBROADCASTW X7, Y7
	VBROADCASTSS step+56(FP), Y14
	CONSTANT(0x7fff, X13, Y13)
	CONSTANT(1, X12, Y12)
	VPXOR Y6, Y6, Y6
	XORQ DX, DX

reconstructSymbolsGroup:
	MEANS
	MOVQ rows+40(FP), CX
	MOVQ DI, R12
	MOVQ SI, R13
	MOVQ R11, AX
	SHLQ $5, AX
	ADDQ DI, AX

reconstructSymbolsRow:
	PREFETCHT0 (AX)
	PREFETCHT0 64(AX)
	ADDQ R11, AX
	VPCMPEQB (R13), Y6, Y4
	VPMOVMSKB Y4, R8
	POPCNTL R8, R8
	ADDQ R8, DX
	VPMOVZXBW (R13), Y0
	VPSUBW Y7, Y0, Y0
	ROUND(Y8, Y9, (R12))
	VPMOVZXBW 16(R13), Y0
	VPSUBW Y7, Y0, Y0
	ROUND(Y10, Y11, 32(R12))
	ADDQ R9, R13
	ADDQ R11, R12
	DECQ CX
	JNZ reconstructSymbolsRow
	ADDQ $128, R10
	ADDQ $64, DI
	ADDQ $32, SI
	DECQ BX
	JNZ reconstructSymbolsGroup
	MOVQ DX, escapes+64(FP)
	VZEROUPPER
	RET

// STATS: 16 channels of one row; Y0, Y1 are scratch.
//	Y15 the upper half, in every 32 bits
#define STATS(v, pivotE, pivotO, sumE, sumO, sqE, sqO) \
	VMOVDQU v, Y1; \
	VPSLLD $16, Y1, Y0; \
	VPAND Y15, Y1, Y1; \
	VSUBPS pivotE, Y0, Y0; \
	VSUBPS pivotO, Y1, Y1; \
	VADDPS Y0, sumE, sumE; \
	VADDPS Y1, sumO, sumO; \
	VMULPS Y0, Y0, Y0; \
	VMULPS Y1, Y1, Y1; \
	VADDPS Y0, sqE, sqE; \
	VADDPS Y1, sqO, sqO

#define PIVOT(v, even, odd) \
	VMOVDQU v, odd; \
	VPSLLD $16, odd, even; \
	VPAND Y15, odd, odd

// IN_ORDER: the 16 channels of even and odd to o(p).
#define IN_ORDER(even, odd, o, p) \
	VUNPCKLPS odd, even, Y0; \
	VUNPCKHPS odd, even, Y1; \
	VPERM2F128 $0x20, Y1, Y0, even; \
	VPERM2F128 $0x31, Y1, Y0, odd; \
	VMOVUPS even, (o+0)(p); \
	VMOVUPS odd, (o+32)(p)

// func statsAVX2(sum, sq *float32, src *byte, stride, groups, rows int)
//
// Rows 16 further on are asked for, as in statsAVX512.
//	Y2-Y5 pivots of even and odd channels; Y6-Y9 sums; Y10-Y13 of squares
TEXT ·statsAVX2(SB), NOSPLIT, $0-48
	MOVQ sum+0(FP), DI
	MOVQ sq+8(FP), R10
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R11
	MOVQ groups+32(FP), BX
	CONSTANT(0xffff0000, X15, Y15)

statsGroup:
	PIVOT((SI), Y2, Y3)
	PIVOT(32(SI), Y4, Y5)
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
	VPXOR Y8, Y8, Y8
	VPXOR Y9, Y9, Y9
	VPXOR Y10, Y10, Y10
	VPXOR Y11, Y11, Y11
	VPXOR Y12, Y12, Y12
	VPXOR Y13, Y13, Y13
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
	STATS((AX), Y2, Y3, Y6, Y7, Y10, Y11)
	STATS(32(AX), Y4, Y5, Y8, Y9, Y12, Y13)
	JMP statsRow

statsDone:
	IN_ORDER(Y6, Y7, 0, DI)
	IN_ORDER(Y8, Y9, 64, DI)
	IN_ORDER(Y10, Y11, 0, R10)
	IN_ORDER(Y12, Y13, 64, R10)
	ADDQ $128, DI
	ADDQ $128, R10
	ADDQ $64, SI
	DECQ BX
	JNZ statsGroup
	VZEROUPPER
	RET

// STEPS: 16 channels from the bf16 at v to floats in steps, even ones in q and odd
// ones in x.
//	Y14 inv; Y15 the upper half, in every 32 bits
#define STEPS(v, even, odd, q, x) \
	VMOVDQU v, x; \
	VPSLLD $16, x, q; \
	VPAND Y15, x, x; \
	VSUBPS even, q, q; \
	VSUBPS odd, x, x; \
	VMULPS Y14, q, q; \
	VMULPS Y14, x, x

// QUANTIZE: 16 channels from the bf16 at v to the words at q; Y0-Y3 are scratch.
//	Y12 all bits but the sign's, in every 32 bits; Y13 accumulates magnitudes, as
//	the unsigned integers that order them too
#define QUANTIZE(v, even, odd, q) \
	STEPS(v, even, odd, Y0, Y1); \
	VPAND Y12, Y0, Y2; \
	VPAND Y12, Y1, Y3; \
	VPMAXUD Y2, Y13, Y13; \
	VPMAXUD Y3, Y13, Y13; \
	VCVTPS2DQ Y0, Y0; \
	VCVTPS2DQ Y1, Y1; \
	VPSLLD $16, Y1, Y1; \
	VPBLENDW $0xaa, Y1, Y0, Y0; \
	VMOVDQU Y0, q

// func quantizeAVX2(q *int16, src *byte, stride int, mean *float32, groups, rows int, inv, limit float32) (bad uint64)
TEXT ·quantizeAVX2(SB), NOSPLIT, $0-64
	MOVQ q+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), R11
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9 // bytes of a row of q
	VBROADCASTSS inv+48(FP), Y14
	CONSTANT(0xffff0000, X15, Y15)
	CONSTANT(0x7fffffff, X12, Y12)
	VPXOR Y13, Y13, Y13

quantizeGroup:
	MEANS
	MOVQ rows+40(FP), CX
	MOVQ SI, R12
	MOVQ DI, R13

quantizeRow:
	QUANTIZE((R12), Y8, Y9, (R13))
	QUANTIZE(32(R12), Y10, Y11, 32(R13))
	ADDQ R11, R12
	ADDQ R9, R13
	DECQ CX
	JNZ quantizeRow
	ADDQ $128, R10
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ BX
	JNZ quantizeGroup
	// NaN and infinities are above every limit.
	VBROADCASTSS limit+52(FP), Y0
	VPMAXUD Y13, Y0, Y0
	VPCMPEQD Y13, Y0, Y0
	VMOVMSKPS Y0, AX
	MOVQ AX, bad+56(FP)
	VZEROUPPER
	RET

// Of 32 values as two packs leave them, the places in order, but for the middle two
// quarters: a pack takes the even ones of a half first, then its odd ones.
DATA pairs<>+0(SB)/8, $0x0703060205010400
DATA pairs<>+8(SB)/8, $0x0f0b0e0a0d090c08
GLOBL pairs<>(SB), RODATA|NOPTR, $16

// PACKED: 16 channels from the bf16 at v to words in q, which saturate; x is scratch.
// Y13 accumulates magnitudes; NaN has the greatest.
#define PACKED(v, even, odd, q, x) \
	STEPS(v, even, odd, q, x); \
	VCVTPS2DQ q, q; \
	VCVTPS2DQ x, x; \
	VPACKSSDW x, q, q; \
	VPABSW q, x; \
	VPMAXUW x, Y13, Y13

// func quantizeSymbolsAVX2(dst, src *byte, stride int, mean *float32, groups, rows int, inv float32) (beyond uint64)
//
// As quantizeSymbolsAVX512.
//	Y7 pairs; Y12 128 in every byte
TEXT ·quantizeSymbolsAVX2(SB), NOSPLIT, $0-64
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), R11
	MOVQ mean+24(FP), R10
	MOVQ groups+32(FP), BX
	MOVQ BX, R9
	SHLQ $5, R9 // bytes of a row of dst
	VBROADCASTSS inv+48(FP), Y14
	CONSTANT(0xffff0000, X15, Y15)
	CONSTANT(0x80808080, X12, Y12)
	VPXOR Y13, Y13, Y13
	VBROADCASTI128 pairs<>(SB), Y7

quantizeSymbolsGroup:
	MEANS
	MOVQ rows+40(FP), CX
	MOVQ SI, R12
	MOVQ DI, R13

quantizeSymbolsRow:
	PACKED((R12), Y8, Y9, Y0, Y1)
	PACKED(32(R12), Y10, Y11, Y2, Y3)
	VPACKSSWB Y2, Y0, Y0
	VPXOR Y12, Y0, Y0
	VPSHUFB Y7, Y0, Y0
	VPERMQ $0xd8, Y0, Y0
	VMOVDQU Y0, (R13)
	ADDQ R11, R12
	ADDQ R9, R13
	DECQ CX
	JNZ quantizeSymbolsRow
	ADDQ $128, R10
	ADDQ $64, SI
	ADDQ $32, DI
	DECQ BX
	JNZ quantizeSymbolsGroup
	// Any magnitude of 128 or more has one of these bits.
	CONSTANT(0xff80ff80, X0, Y0)
	XORQ AX, AX
	VPTEST Y0, Y13
	SETNE AX
	MOVQ AX, beyond+56(FP)
	VZEROUPPER
	RET
