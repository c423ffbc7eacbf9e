#include "avx512_amd64.h"
#include "go_asm.h"
#include "textflag.h"

// func remapAVX512(dst, src *byte, groups int, r *Remap) (zeros int)
//	Z16 Low in every byte; Z17, Z18 Table
TEXT ·remapAVX512(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ r+24(FP), AX
	VPBROADCASTB Remap_Low(AX), Z16
	VMOVDQU64 (Remap_Table+0)(AX), Z17
	VMOVDQU64 (Remap_Table+64)(AX), Z18
	XORQ DX, DX

remapGroup:
	VMOVDQU64 (SI), Z0
	VPSUBB Z16, Z0, Z0
	VPMOVB2M Z0, K1 // 128 or more
	KNOTQ K1, K1
	VPERMI2B Z18, Z17, K1, Z0
	VMOVDQU8.Z Z0, K1, Z0
	VMOVDQU64 Z0, (DI)
	ZEROS(Z0, DX)
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JNZ remapGroup
	MOVQ DX, zeros+32(FP)
	VZEROUPPER
	RET
