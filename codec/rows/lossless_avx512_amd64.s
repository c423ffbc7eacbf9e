#include "avx512_amd64.h"
#include "textflag.h"

// As in avx512_amd64.s: 64 channels at a time.

// Packs work by quarters of a register: of two registers they give the quarters'
// halves in turn. APART brings the halves of the first before those of the
// second; TOGETHER is the reverse, in front of what unpacks.
DATA apart<>+0(SB)/8, $0
DATA apart<>+8(SB)/8, $2
DATA apart<>+16(SB)/8, $4
DATA apart<>+24(SB)/8, $6
DATA apart<>+32(SB)/8, $1
DATA apart<>+40(SB)/8, $3
DATA apart<>+48(SB)/8, $5
DATA apart<>+56(SB)/8, $7
GLOBL apart<>(SB), RODATA|NOPTR, $64

DATA together<>+0(SB)/8, $0
DATA together<>+8(SB)/8, $4
DATA together<>+16(SB)/8, $1
DATA together<>+24(SB)/8, $5
DATA together<>+32(SB)/8, $2
DATA together<>+40(SB)/8, $6
DATA together<>+48(SB)/8, $3
DATA together<>+56(SB)/8, $7
GLOBL together<>(SB), RODATA|NOPTR, $64

// func splitBF16AVX512(exps, rests, src *byte, stride, groups, rows int)
//
// With the lower bytes L (mantissa, below the lowest bit of the exponent) and the
// upper bytes H: exponent = 2 H + L / 128, rest = L with the highest bit of H. Rows
// 16 further on are asked for, as in statsAVX512.
//	Z16 0x00ff in every word; Z17 0x01 and Z18 0x80 in every byte; Z19 apart
TEXT ·splitBF16AVX512(SB), NOSPLIT, $0-48
	MOVQ exps+0(FP), DI
	MOVQ rests+8(FP), R10
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R11
	MOVQ groups+32(FP), R9
	SHLQ $6, R9
	MOVQ rows+40(FP), CX
	MOVL $0x00ff00ff, AX
	VPBROADCASTD AX, Z16
	MOVL $0x01010101, AX
	VPBROADCASTD AX, Z17
	MOVL $0x80808080, AX
	VPBROADCASTD AX, Z18
	VMOVDQU64 apart<>(SB), Z19

splitBF16Row:
	XORQ BX, BX
	MOVQ R11, AX
	SHLQ $4, AX
	ADDQ SI, AX

splitBF16Group:
	PREFETCHT0 (AX)(BX*2)
	PREFETCHT0 64(AX)(BX*2)
	VMOVDQU64 (SI)(BX*2), Z0
	VMOVDQU64 64(SI)(BX*2), Z1
	VPSRLW $8, Z0, Z2
	VPSRLW $8, Z1, Z3
	VPANDD Z16, Z0, Z0
	VPANDD Z16, Z1, Z1
	VPACKUSWB Z3, Z2, Z2
	VPACKUSWB Z1, Z0, Z0
	VPERMQ Z2, Z19, Z2 // H
	VPERMQ Z0, Z19, Z0 // L
	VPSRLW $7, Z0, Z3
	VPADDB Z2, Z2, Z4
	VPTERNLOGD $0xf8, Z17, Z3, Z4 // Z4 | Z3 & Z17
	VPTERNLOGD $0xd8, Z18, Z2, Z0 // Z2 where Z18 has bits, else Z0
	VMOVDQU64 Z4, (DI)(BX*1)
	VMOVDQU64 Z0, (R10)(BX*1)
	ADDQ $64, BX
	CMPQ BX, R9
	JLT splitBF16Group
	ADDQ R11, SI
	ADDQ R9, DI
	ADDQ R9, R10
	DECQ CX
	JNZ splitBF16Row
	VZEROUPPER
	RET

// func joinBF16AVX512(dst *byte, stride int, symbols, rests *byte, groups, rows, offset int) (zeros int, greatest byte)
//
//	Z16 offset and Z18 0x80 in every byte; Z19 together; Z20 the greatest symbols
TEXT ·joinBF16AVX512(SB), NOSPLIT, $0-65
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R11
	MOVQ symbols+16(FP), SI
	MOVQ rests+24(FP), R10
	MOVQ groups+32(FP), R9
	SHLQ $6, R9
	MOVQ rows+40(FP), CX
	MOVQ offset+48(FP), AX
	VPBROADCASTB AX, Z16
	MOVL $0x80808080, AX
	VPBROADCASTD AX, Z18
	VMOVDQU64 together<>(SB), Z19
	VPXORQ Z20, Z20, Z20
	XORQ DX, DX

joinBF16Row:
	XORQ BX, BX

joinBF16Group:
	VMOVDQU64 (SI)(BX*1), Z0
	ZEROS(Z0, DX)
	VPMAXUB Z0, Z20, Z20
	VPADDB Z16, Z0, Z0
	VPERMQ Z0, Z19, Z0
	VPERMQ (R10)(BX*1), Z19, Z1
	VPSRLW $1, Z0, Z2
	VPSLLW $7, Z0, Z3
	VPTERNLOGD $0xd8, Z18, Z1, Z2 // H: the rest's bit, else half of the exponent
	VPTERNLOGD $0xe4, Z18, Z1, Z3 // L: the exponent's bit, else the rest
	VPUNPCKLBW Z2, Z3, Z0
	VPUNPCKHBW Z2, Z3, Z1
	VMOVDQU64 Z0, (DI)(BX*2)
	VMOVDQU64 Z1, 64(DI)(BX*2)
	ADDQ $64, BX
	CMPQ BX, R9
	JLT joinBF16Group
	ADDQ R11, DI
	ADDQ R9, SI
	ADDQ R9, R10
	DECQ CX
	JNZ joinBF16Row
	VMOVDQA64 Z20, Z0
	GREATEST(Z0, Y0, X0, Y1, X1, AX)
	MOVQ DX, zeros+56(FP)
	MOVB AX, greatest+64(FP)
	VZEROUPPER
	RET

// func sumBytesAVX512(sums *uint32, src *byte, groups, rows int)
//
// 64 channels over all rows, at most 256 of them, then the next 64.
TEXT ·sumBytesAVX512(SB), NOSPLIT, $0-32
	MOVQ sums+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ groups+16(FP), BX
	MOVQ BX, R9
	SHLQ $6, R9

sumBytesGroup:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	MOVQ rows+24(FP), CX
	MOVQ SI, AX

sumBytesRow:
	VPMOVZXBW (AX), Z2
	VPMOVZXBW 32(AX), Z3
	VPADDW Z2, Z0, Z0
	VPADDW Z3, Z1, Z1
	ADDQ R9, AX
	DECQ CX
	JNZ sumBytesRow
	VEXTRACTI64X4 $1, Z0, Y2
	VEXTRACTI64X4 $1, Z1, Y3
	VPMOVZXWD Y0, Z0
	VPMOVZXWD Y2, Z2
	VPMOVZXWD Y1, Z1
	VPMOVZXWD Y3, Z3
	VPADDD (DI), Z0, Z0
	VPADDD 64(DI), Z2, Z2
	VPADDD 128(DI), Z1, Z1
	VPADDD 192(DI), Z3, Z3
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z2, 64(DI)
	VMOVDQU64 Z1, 128(DI)
	VMOVDQU64 Z3, 192(DI)
	ADDQ $256, DI
	ADDQ $64, SI
	DECQ BX
	JNZ sumBytesGroup
	VZEROUPPER
	RET
