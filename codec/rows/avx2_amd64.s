#include "textflag.h"

// As in avx512_amd64.s, with AVX2: 32 elements or channels at a time, or 16
// channels of 32 tokens.

// A block is 16 rows of 16 bytes, in the lower halves of registers, and 16 more in
// the upper ones; its columns become its rows. INTERLEAVE takes four rows and leaves 4
// bytes of each column: columns 0-3 in x, 4-7 in c, 8-11 in a, 12-15 in b. d is free
// then.
#define INTERLEAVE(a, b, c, d, x) \
	VPUNPCKLBW b, a, x; \
	VPUNPCKHBW b, a, b; \
	VPUNPCKLBW d, c, a; \
	VPUNPCKHBW d, c, d; \
	VPUNPCKHWD a, x, c; \
	VPUNPCKLWD a, x, x; \
	VPUNPCKLWD d, b, a; \
	VPUNPCKHWD d, b, b

// TURN: four columns, in order, to Y13, Y15, Y14 and Y11, of what INTERLEAVE left of
// four times four rows: p, q, r and m, which is memory. p is scratch.
#define TURN(p, q, r, m) \
	VPUNPCKLDQ q, p, Y13; \
	VPUNPCKHDQ q, p, Y14; \
	VPUNPCKLDQ m, r, Y15; \
	VPUNPCKHDQ m, r, Y11; \
	VMOVDQA Y13, p; \
	VPUNPCKLQDQ Y15, Y13, Y13; \
	VPUNPCKHQDQ Y15, p, Y15; \
	VMOVDQA Y14, p; \
	VPUNPCKLQDQ Y11, Y14, Y14; \
	VPUNPCKHQDQ Y11, p, Y11

// REST: keeps what INTERLEAVE left of the last four rows in the frame, since not all
// 16 rows fit the registers. The others' stay in the registers that BLOCK names.
#define REST \
	INTERLEAVE(Y0, Y1, Y2, Y3, Y4); \
	VMOVDQU Y4, rest-128(SP); \
	VMOVDQU Y2, rest-96(SP); \
	VMOVDQU Y0, rest-64(SP); \
	VMOVDQU Y1, rest-32(SP)

#define BLOCK(store) \
	TURN(Y4, Y8, Y12, rest-128(SP)); \
	store(0, Y13, X13); \
	store(1, Y15, X15); \
	store(2, Y14, X14); \
	store(3, Y11, X11); \
	TURN(Y2, Y6, Y10, rest-96(SP)); \
	store(4, Y13, X13); \
	store(5, Y15, X15); \
	store(6, Y14, X14); \
	store(7, Y11, X11); \
	TURN(Y0, Y3, Y7, rest-64(SP)); \
	store(8, Y13, X13); \
	store(9, Y15, X15); \
	store(10, Y14, X14); \
	store(11, Y11, X11); \
	TURN(Y1, Y5, Y9, rest-32(SP)); \
	store(12, Y13, X13); \
	store(13, Y15, X15); \
	store(14, Y14, X14); \
	store(15, Y11, X11)

// Channel k, 32 tokens of it; R9 has where channels begin.
#define LOAD_CHANNEL(k, y) \
	MOVQ (8*k)(R9), AX; \
	VMOVDQU (SI)(AX*1), y

#define STORE_CHANNEL(k, y, x) \
	MOVQ (8*k)(R9), AX; \
	VMOVDQU y, (DI)(AX*1)

// The next token and the one 16 further on, at DX and R10; R8 is the stride.
#define LOAD_TOKENS(y, x) \
	VMOVDQU (DX), x; \
	VINSERTI128 $1, (R10), y, y; \
	ADDQ R8, DX; \
	ADDQ R8, R10

#define STORE_TOKENS(k, y, x) \
	VMOVDQU x, (DX); \
	VEXTRACTI128 $1, y, (R10); \
	ADDQ R8, DX; \
	ADDQ R8, R10

// The token first of p and the one 16 further on; AX is scratch.
#define TOKENS(p) \
	MOVQ p, DX; \
	MOVQ R8, AX; \
	SHLQ $4, AX; \
	LEAQ (DX)(AX*1), R10

// func scatterAVX2(dst *byte, stride int, src *byte, at *int, blocks int)
//
// 16 channels of 32 blocks tokens: channel i from src[at[i]] on, to dst[i] and
// every stride behind it.
TEXT ·scatterAVX2(SB), NOSPLIT, $128-40
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), R8
	MOVQ src+16(FP), SI
	MOVQ at+24(FP), R9
	MOVQ blocks+32(FP), CX

scatterBlock:
	LOAD_CHANNEL(12, Y0)
	LOAD_CHANNEL(13, Y1)
	LOAD_CHANNEL(14, Y2)
	LOAD_CHANNEL(15, Y3)
	REST
	LOAD_CHANNEL(0, Y0)
	LOAD_CHANNEL(1, Y1)
	LOAD_CHANNEL(2, Y2)
	LOAD_CHANNEL(3, Y3)
	INTERLEAVE(Y0, Y1, Y2, Y3, Y4)
	LOAD_CHANNEL(4, Y3)
	LOAD_CHANNEL(5, Y5)
	LOAD_CHANNEL(6, Y6)
	LOAD_CHANNEL(7, Y7)
	INTERLEAVE(Y3, Y5, Y6, Y7, Y8)
	LOAD_CHANNEL(8, Y7)
	LOAD_CHANNEL(9, Y9)
	LOAD_CHANNEL(10, Y10)
	LOAD_CHANNEL(11, Y11)
	INTERLEAVE(Y7, Y9, Y10, Y11, Y12)
	TOKENS(DI)
	BLOCK(STORE_TOKENS)
	MOVQ R8, AX
	SHLQ $5, AX
	ADDQ AX, DI
	ADDQ $32, SI
	DECQ CX
	JNZ scatterBlock
	VZEROUPPER
	RET

// func gatherAVX2(dst *byte, at *int, src *byte, stride, blocks int)
//
// The reverse.
TEXT ·gatherAVX2(SB), NOSPLIT, $128-40
	MOVQ dst+0(FP), DI
	MOVQ at+8(FP), R9
	MOVQ src+16(FP), SI
	MOVQ stride+24(FP), R8
	MOVQ blocks+32(FP), CX
	LEAQ (R8)(R8*2), BX
	SHLQ $2, BX // 12 rows

gatherBlock:
	TOKENS(SI)
	ADDQ BX, DX
	ADDQ BX, R10
	LOAD_TOKENS(Y0, X0)
	LOAD_TOKENS(Y1, X1)
	LOAD_TOKENS(Y2, X2)
	LOAD_TOKENS(Y3, X3)
	REST
	TOKENS(SI)
	LOAD_TOKENS(Y0, X0)
	LOAD_TOKENS(Y1, X1)
	LOAD_TOKENS(Y2, X2)
	LOAD_TOKENS(Y3, X3)
	INTERLEAVE(Y0, Y1, Y2, Y3, Y4)
	LOAD_TOKENS(Y3, X3)
	LOAD_TOKENS(Y5, X5)
	LOAD_TOKENS(Y6, X6)
	LOAD_TOKENS(Y7, X7)
	INTERLEAVE(Y3, Y5, Y6, Y7, Y8)
	LOAD_TOKENS(Y7, X7)
	LOAD_TOKENS(Y9, X9)
	LOAD_TOKENS(Y10, X10)
	LOAD_TOKENS(Y11, X11)
	INTERLEAVE(Y7, Y9, Y10, Y11, Y12)
	BLOCK(STORE_CHANNEL)
	MOVQ R8, AX
	SHLQ $5, AX
	ADDQ AX, SI
	ADDQ $32, DI
	DECQ CX
	JNZ gatherBlock
	VZEROUPPER
	RET

// func zerosAVX2(masks *uint64, b *byte, groups int)
//
// Groups are of 64 bytes.
TEXT ·zerosAVX2(SB), NOSPLIT, $0-24
	MOVQ masks+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ groups+16(FP), CX
	VPXOR Y15, Y15, Y15

zerosGroup:
	VPCMPEQB (SI), Y15, Y0
	VPCMPEQB 32(SI), Y15, Y1
	VPMOVMSKB Y0, AX
	VPMOVMSKB Y1, DX
	SHLQ $32, DX
	ORQ AX, DX
	MOVQ DX, (DI)
	ADDQ $64, SI
	ADDQ $8, DI
	DECQ CX
	JNZ zerosGroup
	VZEROUPPER
	RET

