#include "textflag.h"

// ADD: 8 columns at byte offset o of the matrix row at R9, times Y15.
#define ADD(o, y) VFMADD231PS o(R9), Y15, y

// func addRowsFMA(sums, m *float32, at *int, factors *float32, rows, blocks int)
//
// Adds factors[i] x m[at[i]...] to sums, fused, rows in ascending order: blocks of
// 8 columns, 64 at a time as long as there are so many. rows and blocks are at
// least 1.
//	DI, SI   columns of sums and of m; R10, R11 at and factors; CX, BX rows
//	DX       blocks that are left
TEXT ·addRowsFMA(SB), NOSPLIT, $0-48
	MOVQ sums+0(FP), DI
	MOVQ m+8(FP), SI
	MOVQ at+16(FP), R10
	MOVQ factors+24(FP), R11
	MOVQ rows+32(FP), BX
	MOVQ blocks+40(FP), DX

many:
	CMPQ DX, $8
	JLT few
	VMOVUPS 0(DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	VMOVUPS 128(DI), Y4
	VMOVUPS 160(DI), Y5
	VMOVUPS 192(DI), Y6
	VMOVUPS 224(DI), Y7
	XORQ CX, CX

manyRow:
	MOVQ (R10)(CX*8), R9
	LEAQ (SI)(R9*4), R9
	VBROADCASTSS (R11)(CX*4), Y15
	ADD(0, Y0)
	ADD(32, Y1)
	ADD(64, Y2)
	ADD(96, Y3)
	ADD(128, Y4)
	ADD(160, Y5)
	ADD(192, Y6)
	ADD(224, Y7)
	INCQ CX
	CMPQ CX, BX
	JLT manyRow
	VMOVUPS Y0, 0(DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	VMOVUPS Y4, 128(DI)
	VMOVUPS Y5, 160(DI)
	VMOVUPS Y6, 192(DI)
	VMOVUPS Y7, 224(DI)
	ADDQ $256, DI
	ADDQ $256, SI
	SUBQ $8, DX
	JMP many

few:
	TESTQ DX, DX
	JZ done
	VMOVUPS (DI), Y0
	XORQ CX, CX

fewRow:
	MOVQ (R10)(CX*8), R9
	LEAQ (SI)(R9*4), R9
	VBROADCASTSS (R11)(CX*4), Y15
	ADD(0, Y0)
	INCQ CX
	CMPQ CX, BX
	JLT fewRow
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	ADDQ $32, SI
	DECQ DX
	JMP few

done:
	VZEROUPPER
	RET
