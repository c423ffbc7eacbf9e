#include "go_asm.h"
#include "textflag.h"
#include "avx512_amd64.h"

// func decodeAVX512(c *cursor)
//
// Decodes whole steps until all runs are done, or until less than 64 bytes are
// readable at c.pos: a step reads 64, whatever it takes. c.steps are then left
// of a run.
TEXT ·decodeAVX512(SB), NOSPLIT, $0-8
	MOVQ c+0(FP), R12
	TAKE_CURSOR(R12, AX, CX, SI, DI, R9)
	LOW_BYTES
	LEAQ cursor_state(R12), BX
	LOAD_STATE(BX, Y0, Z0, Y1, Z1)
	TESTQ CX, CX
	JNZ decodeStep

	NEXT_RUN(decodeRun, decodeStep, decodeEnd, R12, AX, CX, DI)

decodeStep:
	CMPQ SI, R9
	JGT  decodeEnd
	CMPB Table_narrow(AX), $0
	JEQ  decodeWide
	DECODE_STEP_NARROW(Z0, Z1, AX, SI, DI)
	DECQ CX
	JNZ  decodeStep
	JMP  decodeRun

decodeWide:
	DECODE_STEP(Z0, Z1, AX, SI, DI)
	DECQ CX
	JNZ  decodeStep
	JMP  decodeRun

decodeEnd:
	STORE_STATE(BX, Y0, Z0, Y1, Z1)
	VZEROUPPER
	LEAVE_CURSOR(R12, AX, CX, SI, DI)
	RET

// func decodePairAVX512(a, b *cursor)
//
// Decodes two bodies, a step of each in turn: one chain's look-ups and products
// fill the time that the other's take. It stops where decodeAVX512 would stop for
// one of them; the other one may have been decoded one step further.
//	a: R12, table AX, steps CX, src SI, dst DI, last R9; states in Z0, Z1
//	b: R13, table BX, steps DX, src R10, dst R11, last R15; states in Z16, Z17
TEXT ·decodePairAVX512(SB), NOSPLIT, $0-16
	MOVQ a+0(FP), R12
	MOVQ b+8(FP), R13
	LOW_BYTES
	LEAQ cursor_state(R12), R8
	LOAD_STATE(R8, Y0, Z0, Y1, Z1)
	LEAQ cursor_state(R13), R8
	LOAD_STATE(R8, Y16, Z16, Y17, Z17)
	TAKE_CURSOR(R12, AX, CX, SI, DI, R9)
	TAKE_CURSOR(R13, BX, DX, R10, R11, R15)

pairA:
	TESTQ CX, CX
	JNZ pairStepA
	NEXT_RUN(pairRunA, pairStepA, pairEnd, R12, AX, CX, DI)

pairStepA:
	CMPQ SI, R9
	JGT  pairEnd
	ASK(R12)
	CMPB Table_narrow(AX), $0
	JEQ  pairWideA
	DECODE_STEP_NARROW(Z0, Z1, AX, SI, DI)

pairNextB:
	DECQ CX
	TESTQ DX, DX
	JNZ pairStepB
	NEXT_RUN(pairRunB, pairStepB, pairEnd, R13, BX, DX, R11)

pairStepB:
	CMPQ R10, R15
	JGT  pairEnd
	ASK(R13)
	CMPB Table_narrow(BX), $0
	JEQ  pairWideB
	DECODE_STEP_NARROW(Z16, Z17, BX, R10, R11)
	DECQ DX
	JMP pairA

pairWideA:
	DECODE_STEP(Z0, Z1, AX, SI, DI)
	JMP pairNextB

pairWideB:
	DECODE_STEP(Z16, Z17, BX, R10, R11)
	DECQ DX
	JMP pairA

pairEnd:
	LEAVE_CURSOR(R12, AX, CX, SI, DI)
	LEAVE_CURSOR(R13, BX, DX, R10, R11)
	LEAQ cursor_state(R12), R8
	STORE_STATE(R8, Y0, Z0, Y1, Z1)
	LEAQ cursor_state(R13), R8
	STORE_STATE(R8, Y16, Z16, Y17, Z17)
	VZEROUPPER
	RET

// func encodeAVX512(st *State, t *Table, dst *byte, end int, src *byte, steps int) (size int, bad uint64)
//
// Encodes steps, the last one first, into the bytes before dst[end]; it
// writes none at or behind it, and at most 64 for each step. size is the number
// written. bad is not 0 when a symbol has no slot.
TEXT ·encodeAVX512(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), SI
	ADDQ end+24(FP), SI
	MOVQ src+32(FP), DI
	MOVQ steps+40(FP), CX
	ENCODE_HEAD
	VMOVDQU64 (Table_symFreq+0)(AX), Z16
	VMOVDQU64 (Table_symFreq+64)(AX), Z17
	VMOVDQU64 (Table_symFreq+128)(AX), Z18
	VMOVDQU64 (Table_symFreq+192)(AX), Z19
	VMOVDQU64 (Table_symStart+0)(AX), Z20
	VMOVDQU64 (Table_symStart+64)(AX), Z21
	VMOVDQU64 (Table_symStart+128)(AX), Z22
	VMOVDQU64 (Table_symStart+192)(AX), Z23
	VMOVDQU64 (Table_symRcpLo+0)(AX), Z24
	VMOVDQU64 (Table_symRcpLo+64)(AX), Z25
	VMOVDQU64 (Table_symRcpLo+128)(AX), Z26
	VMOVDQU64 (Table_symRcpLo+192)(AX), Z27
	VMOVDQU64 (Table_symRcpHi+0)(AX), Z28
	VMOVDQU64 (Table_symRcpHi+64)(AX), Z29
	VMOVDQU64 (Table_symRcpHi+128)(AX), Z30
	VMOVDQU64 (Table_symRcpHi+192)(AX), Z31
	SHLQ $6, CX

encodeStep:
	VMOVDQU64 -64(DI)(CX*1), Z3
	VPMOVB2M Z3, K1
	LOOKUP256(Z16, Z17, Z18, Z19, Z3, Z8, Z4)
	LOOKUP256(Z20, Z21, Z22, Z23, Z3, Z9, Z5)
	LOOKUP256(Z24, Z25, Z26, Z27, Z3, Z10, Z6)
	LOOKUP256(Z28, Z29, Z30, Z31, Z3, Z11, Z7)
	VPTESTNMB Z4, Z4, K1
	KORQ K1, K7, K7
	VPCMPUB $5, Z4, Z0, K2
	EMIT(Z0, Z1, SI, R10)
	FREQ_WORDS
	RETREAT(Z0, Z1)
	SUBQ $64, CX
	JNZ  encodeStep

	STORE_STATE(BX, Y0, Z0, Y1, Z1)
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+56(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+48(FP)
	RET

// func encodeNarrowAVX512(st *State, t *Table, dst *byte, end int, src *byte, steps int) (size int, bad uint64)
//
// The same for narrow tables: one look-up each.
TEXT ·encodeNarrowAVX512(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), SI
	ADDQ end+24(FP), SI
	MOVQ src+32(FP), DI
	MOVQ steps+40(FP), CX
	ENCODE_HEAD
	VPBROADCASTB Table_before(AX), Z19
	VPBROADCASTB Table_most(AX), Z23
	VMOVDQA64 Z15, Z21
	SHLQ $6, CX

encodeNarrowStep:
	ENCODE_STEP(Z0, Z1, AX, DI, CX, SI, R10, Z14, K7, Z19, Z23, Z21)
	SUBQ $64, CX
	JNZ  encodeNarrowStep

	STORE_STATE(BX, Y0, Z0, Y1, Z1)
	VPBROADCASTB Table_none(AX), Z19
	NARROW(Z14, K7, Z19, Z21)
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+56(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+48(FP)
	RET

// func encodePairAVX512(a, b *encoder, steps int)
//
// Encodes the last steps of both sources, one of each in turn, with narrow tables.
//	a: table AX, symbols SI, bytes DI; states in Z0, Z1; Z14, Z21 and K7 what is
//	   wrong; Z19 before, Z23 most
//	b: table BX, symbols R10, bytes R11; states in Z16, Z17; Z18, Z22 and K6; Z20, Z24
//	R12 all bits set; R13 and R15 the places of the symbols, CX steps
TEXT ·encodePairAVX512(SB), NOSPLIT, $0-24
	MOVQ a+0(FP), R8
	LEAQ encoder_state(R8), R9
	LOAD_STATE(R9, Y0, Z0, Y1, Z1)
	MOVQ encoder_table(R8), AX
	MOVQ (encoder_src+8)(R8), R13
	TAKE_ENCODER(R8, SI, DI)
	MOVQ b+8(FP), R8
	LEAQ encoder_state(R8), R9
	LOAD_STATE(R9, Y16, Z16, Y17, Z17)
	MOVQ encoder_table(R8), BX
	MOVQ (encoder_src+8)(R8), R15
	TAKE_ENCODER(R8, R10, R11)
	PAIR_CONSTANTS
	VPXORQ Z14, Z14, Z14
	VPXORQ Z18, Z18, Z18
	VPBROADCASTB Table_before(AX), Z19
	VPBROADCASTB Table_before(BX), Z20
	VPBROADCASTB Table_most(AX), Z23
	VPBROADCASTB Table_most(BX), Z24
	VMOVDQA64 Z15, Z21
	VMOVDQA64 Z15, Z22
	MOVQ steps+16(FP), CX

encodePairStep:
	ENCODE_STEP(Z0, Z1, AX, SI, R13, DI, R12, Z14, K7, Z19, Z23, Z21)
	ENCODE_STEP(Z16, Z17, BX, R10, R15, R11, R12, Z18, K6, Z20, Z24, Z22)
	SUBQ $64, R13
	SUBQ $64, R15
	DECQ CX
	JNZ  encodePairStep

	VPBROADCASTB Table_none(AX), Z19
	VPBROADCASTB Table_none(BX), Z20
	NARROW(Z14, K7, Z19, Z21)
	NARROW(Z18, K6, Z20, Z22)
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
