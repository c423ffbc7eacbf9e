#include "textflag.h"

// func remapAVX512(dst, src *byte, groups, low, high, add int) (outside int)
//	Z16 low, Z17 high - low, Z18 add, in every byte
TEXT ·remapAVX512(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ low+24(FP), AX
	VPBROADCASTB AX, Z16
	MOVQ high+32(FP), BX
	SUBQ AX, BX
	VPBROADCASTB BX, Z17
	MOVQ add+40(FP), AX
	VPBROADCASTB AX, Z18
	XORQ DX, DX
	MOVQ CX, R9
	SHLQ $6, R9

remapGroup:
	VMOVDQU64 (SI), Z0
	VPSUBB Z16, Z0, Z1
	VPCMPUB $2, Z17, Z1, K1 // at most
	VPADDB.Z Z18, Z0, K1, Z0
	VMOVDQU64 Z0, (DI)
	KMOVQ K1, AX
	POPCNTQ AX, AX
	ADDQ AX, DX
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JNZ remapGroup
	SUBQ DX, R9
	MOVQ R9, outside+48(FP)
	VZEROUPPER
	RET
