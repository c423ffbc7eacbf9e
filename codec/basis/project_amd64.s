#include "textflag.h"

// func projectAVX512(c, m, x *float32, n int)
//
// Of 16 tokens, whose elements d are at x[16 d...], all n coefficients to c[16 j...]:
// a product and a sum for each element, in ascending order, each rounded. 8
// coefficients at a time: their sums do not wait for one another. n is a multiple of 8.
//	Z0-Z7    sums; Z8 an element; Z9-Z16 products
//	AX, BX, DX   rows j, j + 3 and j + 6 of m, R9 bytes apart; R10 x; CX elements
TEXT ·projectAVX512(SB), NOSPLIT, $0-32
	MOVQ c+0(FP), DI
	MOVQ m+8(FP), SI
	MOVQ n+24(FP), R8
	LEAQ (R8*4), R9
	MOVQ R8, R11

projectRows:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VPXORQ Z7, Z7, Z7
	MOVQ SI, AX
	LEAQ (AX)(R9*2), BX
	ADDQ R9, BX
	LEAQ (BX)(R9*2), DX
	ADDQ R9, DX
	MOVQ x+16(FP), R10
	MOVQ R8, CX

projectElement:
	VMOVUPS (R10), Z8
	VMULPS.BCST (AX), Z8, Z9
	VMULPS.BCST (AX)(R9*1), Z8, Z10
	VMULPS.BCST (AX)(R9*2), Z8, Z11
	VMULPS.BCST (BX), Z8, Z12
	VMULPS.BCST (BX)(R9*1), Z8, Z13
	VMULPS.BCST (BX)(R9*2), Z8, Z14
	VMULPS.BCST (DX), Z8, Z15
	VMULPS.BCST (DX)(R9*1), Z8, Z16
	VADDPS Z9, Z0, Z0
	VADDPS Z10, Z1, Z1
	VADDPS Z11, Z2, Z2
	VADDPS Z12, Z3, Z3
	VADDPS Z13, Z4, Z4
	VADDPS Z14, Z5, Z5
	VADDPS Z15, Z6, Z6
	VADDPS Z16, Z7, Z7
	ADDQ $4, AX
	ADDQ $4, BX
	ADDQ $4, DX
	ADDQ $64, R10
	DECQ CX
	JNZ projectElement
	VMOVUPS Z0, 0(DI)
	VMOVUPS Z1, 64(DI)
	VMOVUPS Z2, 128(DI)
	VMOVUPS Z3, 192(DI)
	VMOVUPS Z4, 256(DI)
	VMOVUPS Z5, 320(DI)
	VMOVUPS Z6, 384(DI)
	VMOVUPS Z7, 448(DI)
	ADDQ $512, DI
	LEAQ (SI)(R9*8), SI
	SUBQ $8, R11
	JNZ projectRows
	VZEROUPPER
	RET

// PRODUCTS: adds those of the elements in Y8 and Y9 with the number at m.
#define PRODUCTS(m, low, high) \
	VBROADCASTSS m, Y10; \
	VMULPS Y8, Y10, Y11; \
	VMULPS Y9, Y10, Y12; \
	VADDPS Y11, low, low; \
	VADDPS Y12, high, high

// func projectAVX2(c, m, x *float32, n int)
//
// The same with 4 coefficients at a time.
//	Y0-Y7    sums of the first 8 tokens and the others; AX, BX rows j and j + 3
TEXT ·projectAVX2(SB), NOSPLIT, $0-32
	MOVQ c+0(FP), DI
	MOVQ m+8(FP), SI
	MOVQ n+24(FP), R8
	LEAQ (R8*4), R9
	MOVQ R8, R11

projectFour:
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7
	MOVQ SI, AX
	LEAQ (AX)(R9*2), BX
	ADDQ R9, BX
	MOVQ x+16(FP), R10
	MOVQ R8, CX

projectHalves:
	VMOVUPS (R10), Y8
	VMOVUPS 32(R10), Y9
	PRODUCTS((AX), Y0, Y1)
	PRODUCTS((AX)(R9*1), Y2, Y3)
	PRODUCTS((AX)(R9*2), Y4, Y5)
	PRODUCTS((BX), Y6, Y7)
	ADDQ $4, AX
	ADDQ $4, BX
	ADDQ $64, R10
	DECQ CX
	JNZ projectHalves
	VMOVUPS Y0, 0(DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	VMOVUPS Y4, 128(DI)
	VMOVUPS Y5, 160(DI)
	VMOVUPS Y6, 192(DI)
	VMOVUPS Y7, 224(DI)
	ADDQ $256, DI
	LEAQ (SI)(R9*4), SI
	SUBQ $4, R11
	JNZ projectFour
	VZEROUPPER
	RET
