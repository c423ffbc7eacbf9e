#include "textflag.h"

// A cosine and a sine that lie side by side are a complex number, and so are two
// neighbours of a key: a product of them is a fused product with the real part, from
// which, and to which, the rounded one with the imaginary part goes.

// TURNED: turns the numbers in x by those in z; Y3, Y4 and Y5 are scratch.
//	combine: VFMADDSUB213PS turns, VFMSUBADD213PS turns back
#define TURNED(combine, x, z) \
	VMOVSLDUP z, Y3; \
	VMOVSHDUP z, Y4; \
	VPERMILPS $0xb1, x, Y5; \
	VMULPS Y4, Y5, Y5; \
	combine Y5, Y3, x

// func turnFMA(cs, high, low *float32, blocks int)
//
// Blocks of 4 pairs; blocks is at least 1, as below.
TEXT ·turnFMA(SB), NOSPLIT, $0-32
	MOVQ cs+0(FP), DI
	MOVQ high+8(FP), SI
	MOVQ low+16(FP), DX
	MOVQ blocks+24(FP), CX

turnBlock:
	VMOVUPS (SI), Y0
	VMOVUPS (DX), Y1
	TURNED(VFMADDSUB213PS, Y0, Y1)
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DX
	ADDQ $32, DI
	DECQ CX
	JNZ turnBlock
	VZEROUPPER
	RET

// func neighboursFMA(row, cs *float32, blocks int, back bool)
//
// Blocks of 4 pairs.
TEXT ·neighboursFMA(SB), NOSPLIT, $0-25
	MOVQ row+0(FP), DI
	MOVQ cs+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVBQZX back+24(FP), AX
	TESTQ AX, AX
	JNZ neighboursBack

neighboursBlock:
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	TURNED(VFMADDSUB213PS, Y0, Y1)
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	DECQ CX
	JNZ neighboursBlock
	VZEROUPPER
	RET

neighboursBack:
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	TURNED(VFMSUBADD213PS, Y0, Y1)
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	DECQ CX
	JNZ neighboursBack
	VZEROUPPER
	RET

// HALVES: 8 pairs, x in Y0 and y in Y1, with cosines in Y2 and sines in Y3, and the
// rounded products with these in Y4 (of y) and Y5 (of x).
#define HALVES \
	VMOVUPS (SI), Y4; \
	VMOVUPS 32(SI), Y5; \
	VPERM2F128 $0x20, Y5, Y4, Y6; \
	VPERM2F128 $0x31, Y5, Y4, Y7; \
	VSHUFPS $0x88, Y7, Y6, Y2; \
	VSHUFPS $0xdd, Y7, Y6, Y3; \
	VMOVUPS (DI), Y0; \
	VMOVUPS (DX), Y1; \
	VMULPS Y3, Y1, Y4; \
	VMULPS Y3, Y0, Y5

#define HALVES_NEXT \
	VMOVUPS Y0, (DI); \
	VMOVUPS Y1, (DX); \
	ADDQ $64, SI; \
	ADDQ $32, DI; \
	ADDQ $32, DX; \
	DECQ CX

// func halvesFMA(x, y, cs *float32, blocks int, back bool)
//
// Blocks of 8 pairs.
TEXT ·halvesFMA(SB), NOSPLIT, $0-33
	MOVQ x+0(FP), DI
	MOVQ y+8(FP), DX
	MOVQ cs+16(FP), SI
	MOVQ blocks+24(FP), CX
	MOVBQZX back+32(FP), AX
	TESTQ AX, AX
	JNZ halvesBack

halvesBlock:
	HALVES
	VFMSUB213PS Y4, Y2, Y0
	VFMADD213PS Y5, Y2, Y1
	HALVES_NEXT
	JNZ halvesBlock
	VZEROUPPER
	RET

halvesBack:
	HALVES
	VFMADD213PS Y4, Y2, Y0
	VFMSUB213PS Y5, Y2, Y1
	HALVES_NEXT
	JNZ halvesBack
	VZEROUPPER
	RET
