#include "avx512_amd64.h"
#include "textflag.h"

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

// PLANES of bits: eight registers' bytes are 8 x 8 bits at each of 64 places, which
// EXCHANGE turns around in three steps: of a and b, the bits that low has of a stay
// there, and those of b come beside them, n further up; b gets what is left of both.
#define EXCHANGE(a, b, n, low, x) \
	VPSLLW $n, b, x; \
	VPTERNLOGD $0xd8, low, a, x; \
	VPSRLW $n, a, a; \
	VPTERNLOGD $0xd8, low, a, b; \
	VMOVDQA64 x, a

// MINTERM: in z the places where the three planes are the bits of k.
#define MINTERM(k, c, b, a, z) \
	VMOVDQA64 a, z; \
	VPTERNLOGD $(1<<k), c, b, z

// TALLY: adds what is in both one and eight to the counters at n.
#define TALLY(one, eight, n, x) \
	VPANDQ one, eight, x; \
	VPOPCNTQ x, x; \
	VPADDQ n, x, x; \
	VMOVDQA64 x, n

// EIGHT: counts the symbols 8 k to 8 k + 7; ends the block if they are the last.
#define EIGHT(k) \
	MINTERM(k, Z3, Z4, Z5, Z6); \
	VPANDNQ Z6, Z7, Z6; \
	TALLY(Z8, Z6, (512*k+0)(DI), Z16); \
	TALLY(Z9, Z6, (512*k+64)(DI), Z17); \
	TALLY(Z10, Z6, (512*k+128)(DI), Z18); \
	TALLY(Z11, Z6, (512*k+192)(DI), Z19); \
	TALLY(Z12, Z6, (512*k+256)(DI), Z16); \
	TALLY(Z13, Z6, (512*k+320)(DI), Z17); \
	TALLY(Z14, Z6, (512*k+384)(DI), Z18); \
	TALLY(Z15, Z6, (512*k+448)(DI), Z19); \
	CMPQ BX, $(k+1); \
	JEQ countNext

// func countAVX512(hist *[countWidth]uint32, symbols *byte, blocks int, last *byte, low, eights int)
//
// Sets hist to how often the 8 eights symbols from low on, modulo 256, occur in
// blocks of 512 symbols, and in one more at last, unless that is nil. eights is 1 to
// 8.
//	DI       eight counters for each symbol, at a whole line of the frame
//	Z0-Z7    512 symbols less low; then their bits, plane by plane. Z7 then has the
//	         places of symbols that are 64 or more
//	Z8-Z15   the places of each value of the lower three bits
//	Z20-Z22  0x0f, 0x33 and 0x55, Z23 low, in every byte
TEXT ·countAVX512(SB), 0, $4160-48
	LEAQ counters-4160(SP), DI
	ADDQ $63, DI
	ANDQ $~63, DI
	MOVQ symbols+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVQ low+32(FP), AX
	MOVQ eights+40(FP), BX
	VPBROADCASTB AX, Z23
	MOVL $0x0f0f0f0f, AX
	VPBROADCASTD AX, Z20
	MOVL $0x33333333, AX
	VPBROADCASTD AX, Z21
	MOVL $0x55555555, AX
	VPBROADCASTD AX, Z22
	VPXORQ Z0, Z0, Z0
	MOVQ BX, DX
	SHLQ $3, DX
	MOVQ DI, AX

countClear:
	VMOVDQA64 Z0, (AX)
	ADDQ $64, AX
	DECQ DX
	JNZ countClear
	TESTQ CX, CX
	JZ countLast

countBlock:
	VMOVDQU64 0(SI), Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 128(SI), Z2
	VMOVDQU64 192(SI), Z3
	VMOVDQU64 256(SI), Z4
	VMOVDQU64 320(SI), Z5
	VMOVDQU64 384(SI), Z6
	VMOVDQU64 448(SI), Z7
	VPSUBB Z23, Z0, Z0
	VPSUBB Z23, Z1, Z1
	VPSUBB Z23, Z2, Z2
	VPSUBB Z23, Z3, Z3
	VPSUBB Z23, Z4, Z4
	VPSUBB Z23, Z5, Z5
	VPSUBB Z23, Z6, Z6
	VPSUBB Z23, Z7, Z7
	EXCHANGE(Z0, Z4, 4, Z20, Z16)
	EXCHANGE(Z1, Z5, 4, Z20, Z17)
	EXCHANGE(Z2, Z6, 4, Z20, Z18)
	EXCHANGE(Z3, Z7, 4, Z20, Z19)
	EXCHANGE(Z0, Z2, 2, Z21, Z16)
	EXCHANGE(Z1, Z3, 2, Z21, Z17)
	EXCHANGE(Z4, Z6, 2, Z21, Z18)
	EXCHANGE(Z5, Z7, 2, Z21, Z19)
	EXCHANGE(Z0, Z1, 1, Z22, Z16)
	EXCHANGE(Z2, Z3, 1, Z22, Z17)
	EXCHANGE(Z4, Z5, 1, Z22, Z18)
	EXCHANGE(Z6, Z7, 1, Z22, Z19)
	VPORQ Z6, Z7, Z7
	MINTERM(0, Z0, Z1, Z2, Z8)
	MINTERM(1, Z0, Z1, Z2, Z9)
	MINTERM(2, Z0, Z1, Z2, Z10)
	MINTERM(3, Z0, Z1, Z2, Z11)
	MINTERM(4, Z0, Z1, Z2, Z12)
	MINTERM(5, Z0, Z1, Z2, Z13)
	MINTERM(6, Z0, Z1, Z2, Z14)
	MINTERM(7, Z0, Z1, Z2, Z15)
	EIGHT(0)
	EIGHT(1)
	EIGHT(2)
	EIGHT(3)
	EIGHT(4)
	EIGHT(5)
	EIGHT(6)
	EIGHT(7)

countNext:
	ADDQ $512, SI
	DECQ CX
	JG countBlock

	// The last block is the one after the others; behind it CX is below 0.
	JL countSum

countLast:
	MOVQ last+24(FP), SI
	TESTQ SI, SI
	JNZ countBlock

countSum:
	MOVQ hist+0(FP), SI
	SHLQ $3, BX

countSymbol:
	VMOVDQA64 (DI), Z0
	SUM
	VMOVQ X0, AX
	MOVL AX, (SI)
	ADDQ $64, DI
	ADDQ $4, SI
	DECQ BX
	JNZ countSymbol
	VZEROUPPER
	RET
