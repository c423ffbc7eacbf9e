#include "textflag.h"

// GREATEST: the greatest byte of z in r; y2 and x2 are scratch.
#define GREATEST(z, y, x, y2, x2, r) \
	VEXTRACTI64X4 $1, z, y2; \
	VPMAXUB y2, y, y; \
	VEXTRACTI128 $1, y, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $8, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $4, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $2, x, x2; \
	VPMAXUB x2, x, x; \
	VPSRLDQ $1, x, x2; \
	VPMAXUB x2, x, x; \
	VPEXTRB $0, x, r

// func rangeAVX512(symbols *byte, groups int) (low, high int)
TEXT ·rangeAVX512(SB), NOSPLIT, $0-32
	MOVQ symbols+0(FP), SI
	MOVQ groups+8(FP), CX
	VMOVDQU64 (SI), Z0
	VMOVDQA64 Z0, Z1

rangeGroup:
	VPMINUB (SI), Z0, Z0
	VPMAXUB (SI), Z1, Z1
	ADDQ $64, SI
	DECQ CX
	JNZ rangeGroup
	// The greatest of the complements is the smallest.
	VPTERNLOGD $0x0f, Z0, Z0, Z0
	GREATEST(Z0, Y0, X0, Y2, X2, AX)
	NOTB AX
	MOVBQZX AX, AX
	MOVQ AX, low+16(FP)
	GREATEST(Z1, Y1, X1, Y2, X2, AX)
	MOVBQZX AX, AX
	MOVQ AX, high+24(FP)
	VZEROUPPER
	RET

// COUNT: the bytes of Z0 that are in z.
#define COUNT(z, k, tmp, n) \
	VPCMPEQB z, Z0, k; \
	KMOVQ k, tmp; \
	POPCNTQ tmp, tmp; \
	ADDQ tmp, n

// func countAVX512(n *[countWidth]int, symbols *byte, groups, first int)
//
// The counts of first and the seven symbols behind it (modulo 256).
//	Z16-Z23 these symbols
TEXT ·countAVX512(SB), NOSPLIT, $0-32
	MOVQ symbols+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ first+24(FP), AX
	VPBROADCASTB AX, Z16
	VPTERNLOGD $0xff, Z1, Z1, Z1
	VPSUBB Z1, Z16, Z17
	VPSUBB Z1, Z17, Z18
	VPSUBB Z1, Z18, Z19
	VPSUBB Z1, Z19, Z20
	VPSUBB Z1, Z20, Z21
	VPSUBB Z1, Z21, Z22
	VPSUBB Z1, Z22, Z23
	XORQ R8, R8
	XORQ R9, R9
	XORQ R10, R10
	XORQ R11, R11
	XORQ R12, R12
	XORQ R13, R13
	XORQ R15, R15
	XORQ DI, DI

countGroup:
	VMOVDQU64 (SI), Z0
	ADDQ $64, SI
	COUNT(Z16, K1, AX, R8)
	COUNT(Z17, K2, BX, R9)
	COUNT(Z18, K3, DX, R10)
	COUNT(Z19, K4, AX, R11)
	COUNT(Z20, K5, BX, R12)
	COUNT(Z21, K6, DX, R13)
	COUNT(Z22, K7, AX, R15)
	COUNT(Z23, K1, BX, DI)
	DECQ CX
	JNZ countGroup
	MOVQ n+0(FP), AX
	MOVQ R8, (AX)
	MOVQ R9, 8(AX)
	MOVQ R10, 16(AX)
	MOVQ R11, 24(AX)
	MOVQ R12, 32(AX)
	MOVQ R13, 40(AX)
	MOVQ R15, 48(AX)
	MOVQ DI, 56(AX)
	VZEROUPPER
	RET
