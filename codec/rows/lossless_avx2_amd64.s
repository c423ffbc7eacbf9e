#include "textflag.h"

// As in lossless_avx512_amd64.s, with AVX2: 32 channels at a time. Packs work by
// halves of a register: VPERMQ $0xd8 exchanges its middle quarters.

#define CONSTANT(value, x, y) \
	MOVL $value, AX; \
	VMOVD AX, x; \
	VPBROADCASTD x, y

// func splitBF16AVX2(exps, rests, src *byte, stride, groups, rows int)
//
// As splitBF16AVX512.
//	Y12 0x00ff in every word; Y13 0x01, Y14 0x80 and Y15 0x7f in every byte
TEXT ·splitBF16AVX2(SB), NOSPLIT, $0-48
	MOVQ exps+0(FP), DI
	MOVQ rests+8(FP), R10
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R11
	MOVQ groups+32(FP), R9
	SHLQ $5, R9
	MOVQ rows+40(FP), CX
	CONSTANT(0x00ff00ff, X12, Y12)
	CONSTANT(0x01010101, X13, Y13)
	CONSTANT(0x80808080, X14, Y14)
	CONSTANT(0x7f7f7f7f, X15, Y15)

splitBF16Row:
	XORQ BX, BX
	MOVQ R11, AX
	SHLQ $4, AX
	ADDQ SI, AX

splitBF16Group:
	PREFETCHT0 (AX)(BX*2)
	VMOVDQU (SI)(BX*2), Y0
	VMOVDQU 32(SI)(BX*2), Y1
	VPSRLW $8, Y0, Y2
	VPSRLW $8, Y1, Y3
	VPAND Y12, Y0, Y0
	VPAND Y12, Y1, Y1
	VPACKUSWB Y3, Y2, Y2
	VPACKUSWB Y1, Y0, Y0
	VPERMQ $0xd8, Y2, Y2 // H
	VPERMQ $0xd8, Y0, Y0 // L
	VPSRLW $7, Y0, Y3
	VPAND Y13, Y3, Y3
	VPADDB Y2, Y2, Y4
	VPOR Y3, Y4, Y4
	VPAND Y15, Y0, Y0
	VPAND Y14, Y2, Y2
	VPOR Y2, Y0, Y0
	VMOVDQU Y4, (DI)(BX*1)
	VMOVDQU Y0, (R10)(BX*1)
	ADDQ $32, BX
	CMPQ BX, R9
	JLT splitBF16Group
	ADDQ R11, SI
	ADDQ R9, DI
	ADDQ R9, R10
	DECQ CX
	JNZ splitBF16Row
	VZEROUPPER
	RET

// func joinBF16AVX2(dst *byte, stride int, symbols, rests *byte, groups, rows, offset int) (zeros int, greatest byte)
//
//	Y10 0; Y11 the greatest symbols; Y13 offset, Y14 0x80 and Y15 0x7f in every byte
TEXT ·joinBF16AVX2(SB), NOSPLIT, $0-65
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ symbols+16(FP), SI
	MOVQ rests+24(FP), R10
	MOVQ groups+32(FP), R9
	SHLQ $5, R9
	MOVQ rows+40(FP), CX
	MOVQ offset+48(FP), AX
	VMOVD AX, X13
	VPBROADCASTB X13, Y13
	CONSTANT(0x80808080, X14, Y14)
	CONSTANT(0x7f7f7f7f, X15, Y15)
	VPXOR Y10, Y10, Y10
	VPXOR Y11, Y11, Y11
	XORQ DX, DX

joinBF16Row:
	XORQ BX, BX

joinBF16Group:
	VMOVDQU (SI)(BX*1), Y0
	VPCMPEQB Y0, Y10, Y1
	VPMOVMSKB Y1, R8
	POPCNTL R8, R8
	ADDQ R8, DX
	VPMAXUB Y0, Y11, Y11
	VPADDB Y13, Y0, Y0
	VPERMQ $0xd8, Y0, Y0
	VPERMQ $0xd8, (R10)(BX*1), Y1
	VPSRLW $1, Y0, Y2
	VPSLLW $7, Y0, Y3
	VPAND Y15, Y2, Y2
	VPAND Y14, Y3, Y3
	VPAND Y14, Y1, Y4
	VPAND Y15, Y1, Y1
	VPOR Y4, Y2, Y2 // H
	VPOR Y1, Y3, Y3 // L
	VPUNPCKLBW Y2, Y3, Y0
	VPUNPCKHBW Y2, Y3, Y1
	VMOVDQU Y0, (DI)(BX*2)
	VMOVDQU Y1, 32(DI)(BX*2)
	ADDQ $32, BX
	CMPQ BX, R9
	JLT joinBF16Group
	ADDQ R11, DI
	ADDQ R9, SI
	ADDQ R9, R10
	DECQ CX
	JNZ joinBF16Row
	VEXTRACTI128 $1, Y11, X0
	VPMAXUB X0, X11, X0
	VPSRLDQ $8, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $4, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $2, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $1, X0, X1
	VPMAXUB X1, X0, X0
	VPEXTRB $0, X0, AX
	MOVQ DX, zeros+56(FP)
	MOVB AX, greatest+64(FP)
	VZEROUPPER
	RET

// WIDER: adds the 16 words in y to the sums at o(DI); Y2-Y3 are scratch.
#define WIDER(x, y, o) \
	VPMOVZXWD x, Y2; \
	VEXTRACTI128 $1, y, X3; \
	VPMOVZXWD X3, Y3; \
	VPADDD (o+0)(DI), Y2, Y2; \
	VPADDD (o+32)(DI), Y3, Y3; \
	VMOVDQU Y2, (o+0)(DI); \
	VMOVDQU Y3, (o+32)(DI)

// func sumBytesAVX2(sums *uint32, src *byte, groups, rows int)
//
// 32 channels over all rows, at most 256 of them, then the next 32.
TEXT ·sumBytesAVX2(SB), NOSPLIT, $0-32
	MOVQ sums+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ groups+16(FP), BX
	MOVQ BX, R9
	SHLQ $5, R9

sumBytesGroup:
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	MOVQ rows+24(FP), CX
	MOVQ SI, AX

sumBytesRow:
	VPMOVZXBW (AX), Y2
	VPMOVZXBW 16(AX), Y3
	VPADDW Y2, Y0, Y0
	VPADDW Y3, Y1, Y1
	ADDQ R9, AX
	DECQ CX
	JNZ sumBytesRow
	WIDER(X0, Y0, 0)
	WIDER(X1, Y1, 64)
	ADDQ $128, DI
	ADDQ $32, SI
	DECQ BX
	JNZ sumBytesGroup
	VZEROUPPER
	RET
