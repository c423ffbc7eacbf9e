#include "go_asm.h"
#include "textflag.h"

// A byte's lower half picks eight bits of the set, one for each upper half. Bytes of
// 128 and more pick 0 where they stand for others: that is what VPSHUFB does.
DATA bitOf<>+0(SB)/8, $0x8040201008040201
DATA bitOf<>+8(SB)/8, $0x8040201008040201
GLOBL bitOf<>(SB), RODATA|NOPTR, $16

// func outsideAVX512(masks *uint64, b *byte, groups int, s *Set) (n int)
//	Z16, Z17 the set; Z18 bitOf; Z19 0x80 and Z20 0x07 in every byte
TEXT ·outsideAVX512(SB), NOSPLIT, $0-40
	MOVQ masks+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ s+24(FP), AX
	VBROADCASTI32X4 Set_low(AX), Z16
	VBROADCASTI32X4 Set_high(AX), Z17
	VBROADCASTI32X4 bitOf<>(SB), Z18
	MOVL $0x80808080, AX
	VPBROADCASTD AX, Z19
	MOVL $0x07070707, AX
	VPBROADCASTD AX, Z20
	XORQ DX, DX

outsideGroup:
	VMOVDQU64 (SI), Z0
	VPXORQ Z19, Z0, Z1
	VPSHUFB Z0, Z16, Z2
	VPSHUFB Z1, Z17, Z3
	VPSRLW $4, Z0, Z0
	VPANDQ Z20, Z0, Z0
	VPORQ Z3, Z2, Z2
	VPSHUFB Z0, Z18, Z0
	VPTESTNMB Z0, Z2, K1
	KMOVQ K1, R8
	MOVQ R8, (DI)
	POPCNTQ R8, R8
	ADDQ R8, DX
	ADDQ $64, SI
	ADDQ $8, DI
	DECQ CX
	JNZ outsideGroup
	MOVQ DX, n+32(FP)
	VZEROUPPER
	RET

// OUTSIDE: the bytes at o(SI) that are not in the set, as bits of r.
#define OUTSIDE(o, r) \
	VMOVDQU o(SI), Y0; \
	VPXOR Y13, Y0, Y1; \
	VPSHUFB Y0, Y10, Y2; \
	VPSHUFB Y1, Y11, Y3; \
	VPSRLW $4, Y0, Y0; \
	VPAND Y14, Y0, Y0; \
	VPOR Y3, Y2, Y2; \
	VPSHUFB Y0, Y12, Y0; \
	VPAND Y0, Y2, Y2; \
	VPCMPEQB Y15, Y2, Y2; \
	VPMOVMSKB Y2, r

// func outsideAVX2(masks *uint64, b *byte, groups int, s *Set) (n int)
//
// Groups are of 64 bytes.
//	Y10, Y11 the set; Y12 bitOf; Y13 0x80 and Y14 0x07 in every byte; Y15 0
TEXT ·outsideAVX2(SB), NOSPLIT, $0-40
	MOVQ masks+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ s+24(FP), AX
	VBROADCASTI128 Set_low(AX), Y10
	VBROADCASTI128 Set_high(AX), Y11
	VBROADCASTI128 bitOf<>(SB), Y12
	MOVL $0x80808080, AX
	VMOVD AX, X13
	VPBROADCASTD X13, Y13
	MOVL $0x07070707, AX
	VMOVD AX, X14
	VPBROADCASTD X14, Y14
	VPXOR Y15, Y15, Y15
	XORQ DX, DX

outsideHalves:
	OUTSIDE(0, R8)
	OUTSIDE(32, R9)
	SHLQ $32, R9
	ORQ R9, R8
	MOVQ R8, (DI)
	POPCNTQ R8, R8
	ADDQ R8, DX
	ADDQ $64, SI
	ADDQ $8, DI
	DECQ CX
	JNZ outsideHalves
	MOVQ DX, n+32(FP)
	VZEROUPPER
	RET
