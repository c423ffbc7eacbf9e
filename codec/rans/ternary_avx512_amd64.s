#include "go_asm.h"
#include "textflag.h"
#include "avx512_amd64.h"

// func decodeTernaryAVX512(c *ternaryCursor, steps int)
//
// Decodes steps, or until less than 64 bytes are readable at c.pos. Contexts are
// taken modulo 64; that they are in the table is the caller's to know.
TEXT ·decodeTernaryAVX512(SB), NOSPLIT, $0-16
	MOVQ c+0(FP), R12
	MOVQ steps+8(FP), CX
	LOW_BYTES
	TAKE_TERNARY(R12, AX, DX, SI, DI, R9)
	VPTERNLOGD $0xff, Z15, Z15, Z15
	LEAQ ternaryCursor_state(R12), BX
	LOAD_STATE(BX, Y0, Z0, Y1, Z1)

ternaryStep:
	CMPQ SI, R9
	JGT  ternaryEnd
	TERNARY_STEP(Z0, Z1, AX, DX, SI, DI)
	DECQ CX
	JNZ  ternaryStep

ternaryEnd:
	STORE_STATE(BX, Y0, Z0, Y1, Z1)
	VZEROUPPER
	LEAVE_TERNARY(R12, SI, DI)
	RET

// func decodeTernaryPairAVX512(a, b *ternaryCursor, steps int)
//
// Decodes steps of both, one of each in turn, or until one of them has less than
// 64 bytes; a may then be one step further.
//	a: table AX, contexts BX, src SI, dst DI, last R9; states in Z0, Z1
//	b: table DX, contexts R12, src R10, dst R11, last R13; states in Z16, Z17
TEXT ·decodeTernaryPairAVX512(SB), NOSPLIT, $0-24
	LOW_BYTES
	MOVQ a+0(FP), R15
	LEAQ ternaryCursor_state(R15), R8
	LOAD_STATE(R8, Y0, Z0, Y1, Z1)
	TAKE_TERNARY(R15, AX, BX, SI, DI, R9)
	MOVQ b+8(FP), R15
	LEAQ ternaryCursor_state(R15), R8
	LOAD_STATE(R8, Y16, Z16, Y17, Z17)
	TAKE_TERNARY(R15, DX, R12, R10, R11, R13)
	VPTERNLOGD $0xff, Z15, Z15, Z15
	MOVQ steps+16(FP), CX

ternaryPair:
	CMPQ SI, R9
	JGT  ternaryPairEnd
	TERNARY_STEP(Z0, Z1, AX, BX, SI, DI)
	CMPQ R10, R13
	JGT  ternaryPairEnd
	TERNARY_STEP(Z16, Z17, DX, R12, R10, R11)
	DECQ CX
	JNZ  ternaryPair

ternaryPairEnd:
	MOVQ a+0(FP), R15
	LEAVE_TERNARY(R15, SI, DI)
	LEAQ ternaryCursor_state(R15), R8
	STORE_STATE(R8, Y0, Z0, Y1, Z1)
	MOVQ b+8(FP), R15
	LEAVE_TERNARY(R15, R10, R11)
	LEAQ ternaryCursor_state(R15), R8
	STORE_STATE(R8, Y16, Z16, Y17, Z17)
	VZEROUPPER
	RET

// func greatestAVX512(b *byte, groups int) (greatest uint8)
//
// Of the 64 groups bytes at b.
TEXT ·greatestAVX512(SB), NOSPLIT, $0-17
	MOVQ b+0(FP), SI
	MOVQ groups+8(FP), CX
	VPXORQ Z0, Z0, Z0

greatestGroup:
	VPMAXUB (SI), Z0, Z0
	ADDQ $64, SI
	DECQ CX
	JNZ greatestGroup
	VEXTRACTI64X4 $1, Z0, Y1
	VPMAXUB Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $4, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $2, X0, X1
	VPMAXUB X1, X0, X0
	VPSRLDQ $1, X0, X1
	VPMAXUB X1, X0, X0
	VPEXTRB $0, X0, AX
	MOVB AX, greatest+16(FP)
	VZEROUPPER
	RET

// func encodeTernaryAVX512(st *State, t *TernaryTable, dst *byte, end int, ctx, src *byte, steps int) (size int, bad uint64)
//
// As encodeAVX512. bad is not 0 when a symbol is above 2, has no slot in its
// context, or a context is not in the table.
TEXT ·encodeTernaryAVX512(SB), NOSPLIT, $0-72
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), SI
	ADDQ end+24(FP), SI
	MOVQ ctx+32(FP), R11
	MOVQ src+40(FP), DI
	MOVQ steps+48(FP), CX
	ENCODE_HEAD
	MOVL $0x02020202, DX
	VPBROADCASTD DX, Z20
	MOVQ TernaryTable_contexts(AX), DX
	VPBROADCASTB DX, Z21
	SHLQ $6, CX

encodeTernaryStep:
	TERNARY_ENCODE_STEP(Z0, Z1, AX, Z21, DI, R11, CX, SI, R10, K7)
	SUBQ $64, CX
	JNZ  encodeTernaryStep

	STORE_STATE(BX, Y0, Z0, Y1, Z1)
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+64(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+56(FP)
	RET

// func encodeTernaryPairAVX512(a, b *encoder, steps int)
//
// The same with ternary symbols.
//	a: table AX, symbols SI, contexts R14, bytes DI
//	b: table BX, symbols R10, contexts R9, bytes R11
TEXT ·encodeTernaryPairAVX512(SB), NOSPLIT, $0-24
	MOVQ a+0(FP), R8
	LEAQ encoder_state(R8), R9
	LOAD_STATE(R9, Y0, Z0, Y1, Z1)
	MOVQ encoder_ternary(R8), AX
	MOVQ (encoder_src+8)(R8), R13
	MOVQ encoder_ctx(R8), R14
	TAKE_ENCODER(R8, SI, DI)
	MOVQ b+8(FP), R8
	LEAQ encoder_state(R8), R9
	LOAD_STATE(R9, Y16, Z16, Y17, Z17)
	MOVQ encoder_ternary(R8), BX
	MOVQ (encoder_src+8)(R8), R15
	MOVQ encoder_ctx(R8), R9
	TAKE_ENCODER(R8, R10, R11)
	PAIR_CONSTANTS
	MOVL $0x02020202, DX
	VPBROADCASTD DX, Z20
	MOVQ TernaryTable_contexts(AX), DX
	VPBROADCASTB DX, Z21
	MOVQ TernaryTable_contexts(BX), DX
	VPBROADCASTB DX, Z22
	MOVQ steps+16(FP), CX

encodeTernaryPairStep:
	TERNARY_ENCODE_STEP(Z0, Z1, AX, Z21, SI, R14, R13, DI, R12, K7)
	TERNARY_ENCODE_STEP(Z16, Z17, BX, Z22, R10, R9, R15, R11, R12, K6)
	SUBQ $64, R13
	SUBQ $64, R15
	DECQ CX
	JNZ  encodeTernaryPairStep

	MOVQ a+0(FP), R8
	LEAQ encoder_state(R8), R9
	STORE_STATE(R9, Y0, Z0, Y1, Z1)
	KMOVQ K7, DX
	LEAVE_ENCODER(R8, DI, DX)
	MOVQ b+8(FP), R8
	LEAQ encoder_state(R8), R9
	STORE_STATE(R9, Y16, Z16, Y17, Z17)
	KMOVQ K6, DX
	LEAVE_ENCODER(R8, R11, DX)
	VZEROUPPER
	RET
