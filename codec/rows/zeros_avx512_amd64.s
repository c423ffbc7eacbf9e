#include "textflag.h"

// func zerosAVX512(masks *uint64, b *byte, groups int)
TEXT ·zerosAVX512(SB), NOSPLIT, $0-24
	MOVQ masks+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ groups+16(FP), CX

zerosGroup:
	VMOVDQU64 (SI), Z0
	VPTESTNMB Z0, Z0, K1
	KMOVQ K1, (DI)
	ADDQ $64, SI
	ADDQ $8, DI
	DECQ CX
	JNZ zerosGroup
	VZEROUPPER
	RET
