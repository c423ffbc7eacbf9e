#include "go_asm.h"
#include "textflag.h"

// The AVX-512 kernels: 64 lanes in two registers.
//
// Register plan, the same in every kernel here:
//
//	Z0   hi: the upper byte of each lane's state, lane l in byte l
//	Z1   lo: the lower byte of each lane's state
//	Z2   0x00ff in every word
//	Z3-Z15   scratch, no value lives from one step to the next, but for
//	         constants and accumulators that the kernel's head names
//	Z16-Z31  the table
//	SI   the next byte of the body
//	DI   the symbols
//	CX   steps that are left
//
// 16-bit arithmetic happens in two halves: "even" words belong to the lanes
// 0, 2, 4, ... and "odd" words to 1, 3, 5, ... A byte vector v splits into the
// words v & 0x00ff and v >> 8, and two word vectors whose values are bytes join
// as even | odd << 8: no shuffles, so that the shuffle port is left to the
// table look-ups, compress and expand.
//
// VPTERNLOGD picks by the mask in Z2:
//	PICK_LOW  (dst: odd half, b: even half): even bytes of b, odd bytes of dst
//	PICK_HIGH (dst: even half, b: odd half): even bytes of dst, odd bytes of b
#define PICK_LOW(b, dst)  VPTERNLOGD $0xd8, Z2, b, dst
#define PICK_HIGH(b, dst) VPTERNLOGD $0xe4, Z2, b, dst

// LOAD_STATE: hi and lo from the words at (BX); Y/Z 4 and 5 are scratch.
#define LOAD_STATE \
	VMOVDQU64 (BX), Z4; \
	VMOVDQU64 64(BX), Z5; \
	VPMOVWB Z4, Y1; \
	VPMOVWB Z5, Y0; \
	VINSERTI64X4 $1, Y0, Z1, Z1; \
	VPSRLW $8, Z4, Z4; \
	VPSRLW $8, Z5, Z5; \
	VPMOVWB Z4, Y0; \
	VPMOVWB Z5, Y5; \
	VINSERTI64X4 $1, Y5, Z0, Z0

// STORE_STATE: the words at (BX) from hi and lo; Z4-Z7 are scratch.
#define STORE_STATE \
	VPMOVZXBW Y0, Z4; \
	VPMOVZXBW Y1, Z5; \
	VEXTRACTI64X4 $1, Z0, Y6; \
	VEXTRACTI64X4 $1, Z1, Y7; \
	VPMOVZXBW Y6, Z6; \
	VPMOVZXBW Y7, Z7; \
	VPSLLW $8, Z4, Z4; \
	VPSLLW $8, Z6, Z6; \
	VPORQ Z5, Z4, Z4; \
	VPORQ Z7, Z6, Z6; \
	VMOVDQU64 Z4, (BX); \
	VMOVDQU64 Z6, 64(BX)

#define LOW_BYTES \
	MOVL $0x00ff00ff, DX; \
	VPBROADCASTD DX, Z2

// LOOKUP256: dst = the byte that idx picks out of the 256 in a0-a3; K1 has the
// lanes whose index is 128 or more; tmp is scratch.
#define LOOKUP256(a0, a1, a2, a3, idx, tmp, dst) \
	VMOVDQA64 idx, dst; \
	VMOVDQA64 idx, tmp; \
	VPERMI2B a1, a0, dst; \
	VPERMI2B a3, a2, tmp; \
	VMOVDQU8 tmp, K1, dst

// FREQ_WORDS: the bytes of Z4 as words, even in Z12 and odd in Z13.
#define FREQ_WORDS \
	VPANDD Z2, Z4, Z12; \
	VPSRLW $8, Z4, Z13

// ADVANCE: what a decoder does with the frequencies in Z12 and Z13 and the biases
// in Z5. x = freq * hi + bias, and a lane below 256 takes one more byte. Z8 has
// the next 64 bytes of the body; SI moves on. No step takes more than 64.
//	Z6, Z7   even and odd products
//	K2, R8   the lanes that take a byte, and their number
#define ADVANCE \
	VPANDD Z2, Z0, Z6; \
	VPSRLW $8, Z0, Z7; \
	VPMULLW Z12, Z6, Z6; \
	VPMULLW Z13, Z7, Z7; \
	VPANDD Z2, Z5, Z9; \
	VPSRLW $8, Z5, Z5; \
	VPADDW Z9, Z6, Z6; \
	VPADDW Z5, Z7, Z7; \
	VPSLLW $8, Z7, Z1; \
	VPSRLW $8, Z6, Z0; \
	PICK_LOW(Z6, Z1); \
	PICK_HIGH(Z7, Z0); \
	VPTESTNMB Z0, Z0, K2; \
	VMOVDQU8 Z1, K2, Z0; \
	VPEXPANDB Z8, K2, Z1; \
	KMOVQ K2, R8; \
	POPCNTQ R8, R8; \
	ADDQ R8, SI

// func decodeAVX512(st *State, t *Table, dst *byte, steps int, src *byte, avail int) (left, pos int)
//
// Decodes whole steps while 64 bytes of src are readable at the cursor: a step
// reads 64 bytes, whatever it takes. left is the number of steps not done, pos
// the cursor; avail may be less than 64.
TEXT ·decodeAVX512(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), DI
	MOVQ steps+24(FP), CX
	MOVQ src+32(FP), SI
	MOVQ avail+40(FP), R9
	LEAQ -64(SI)(R9*1), R9 // the last cursor at which a step may begin
	LOW_BYTES
	LOAD_STATE
	VMOVDQU64 (Table_slotSym+0)(AX), Z16
	VMOVDQU64 (Table_slotSym+64)(AX), Z17
	VMOVDQU64 (Table_slotSym+128)(AX), Z18
	VMOVDQU64 (Table_slotSym+192)(AX), Z19
	VMOVDQU64 (Table_slotFreq+0)(AX), Z20
	VMOVDQU64 (Table_slotFreq+64)(AX), Z21
	VMOVDQU64 (Table_slotFreq+128)(AX), Z22
	VMOVDQU64 (Table_slotFreq+192)(AX), Z23
	VMOVDQU64 (Table_slotBias+0)(AX), Z24
	VMOVDQU64 (Table_slotBias+64)(AX), Z25
	VMOVDQU64 (Table_slotBias+128)(AX), Z26
	VMOVDQU64 (Table_slotBias+192)(AX), Z27

decodeStep:
	CMPQ SI, R9
	JGT  decodeEnd
	VMOVDQU64 (SI), Z8
	VPMOVB2M Z1, K1
	LOOKUP256(Z20, Z21, Z22, Z23, Z1, Z10, Z4)
	LOOKUP256(Z24, Z25, Z26, Z27, Z1, Z11, Z5)
	LOOKUP256(Z16, Z17, Z18, Z19, Z1, Z12, Z13)
	VMOVDQU64 Z13, (DI)
	ADDQ $64, DI
	FREQ_WORDS
	ADVANCE
	DECQ CX
	JNZ  decodeStep

decodeEnd:
	STORE_STATE
	VZEROUPPER
	MOVQ CX, left+48(FP)
	SUBQ src+32(FP), SI
	MOVQ SI, pos+56(FP)
	RET

// EMIT: a lane in K2, whose hi is at least its symbol's frequency, emits lo and
// goes on with hi alone. SI moves down.
//	R8       the number of lanes that emit; R10 has all bits set
#define EMIT \
	VPCOMPRESSB.Z Z1, K2, Z3; \
	VMOVDQU8 Z0, K2, Z1; \
	KNOTQ K2, K3; \
	VMOVDQU8.Z Z0, K3, Z0; \
	KMOVQ K2, R8; \
	POPCNTQ R8, R8; \
	SUBQ R8, SI; \
	BZHIQ R8, R10, R8; \
	KMOVQ R8, K2; \
	VMOVDQU8 Z3, K2, (SI)

// RETREAT: x becomes 256 (x / freq) + x mod freq + start, with, for each lane's
// symbol, the frequencies in Z12 and Z13, the first slot in Z5, and
// floor(65535 / frequency) in Z6 (low bytes) and Z7 (high bytes).
//
// The quotient comes from the high half of x * reciprocal: x < 256 freq, so it
// is right or 1 too small, and a remainder of freq or more says which.
//	Z15      -1 in every word
//	Z8, Z9   x, even and odd; then the remainders, and with start the lower bytes
//	Z10, Z11 reciprocals, then quotients: the upper bytes
#define RETREAT \
	VPSLLW $8, Z0, Z8; \
	VPSRLW $8, Z1, Z9; \
	PICK_LOW(Z1, Z8); \
	PICK_HIGH(Z0, Z9); \
	VPSLLW $8, Z7, Z10; \
	VPSRLW $8, Z6, Z11; \
	PICK_LOW(Z6, Z10); \
	PICK_HIGH(Z7, Z11); \
	VPMULHUW Z8, Z10, Z10; \
	VPMULHUW Z9, Z11, Z11; \
	VPMULLW Z12, Z10, Z4; \
	VPMULLW Z13, Z11, Z6; \
	VPSUBW Z4, Z8, Z8; \
	VPSUBW Z6, Z9, Z9; \
	VPCMPUW $5, Z12, Z8, K3; \
	VPCMPUW $5, Z13, Z9, K4; \
	VPSUBW Z12, Z8, K3, Z8; \
	VPSUBW Z13, Z9, K4, Z9; \
	VPSUBW Z15, Z10, K3, Z10; \
	VPSUBW Z15, Z11, K4, Z11; \
	VPSLLW $8, Z11, Z0; \
	VPSLLW $8, Z9, Z1; \
	VPORQ Z10, Z0, Z0; \
	VPORQ Z8, Z1, Z1; \
	VPADDB Z5, Z1, Z1

// ENCODE_HEAD: arguments and constants of both encoders.
//	K7, Z14  accumulate what is wrong with symbols
#define ENCODE_HEAD \
	LOW_BYTES; \
	LOAD_STATE; \
	VPTERNLOGD $0xff, Z15, Z15, Z15; \
	VPXORQ Z14, Z14, Z14; \
	KXORQ K7, K7, K7; \
	MOVQ $-1, R10

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
	EMIT
	FREQ_WORDS
	RETREAT
	SUBQ $64, CX
	JNZ  encodeStep

	STORE_STATE
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+56(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+48(FP)
	RET

// func encodeSmallAVX512(st *State, t *Table, dst *byte, end int, src *byte, steps int) (size int, bad uint64)
//
// The same for tables whose symbols are all below 64: one look-up each. A symbol
// of 64 or more is bad too.
TEXT ·encodeSmallAVX512(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), SI
	ADDQ end+24(FP), SI
	MOVQ src+32(FP), DI
	MOVQ steps+40(FP), CX
	ENCODE_HEAD
	VMOVDQU64 Table_symFreq(AX), Z16
	VMOVDQU64 Table_symStart(AX), Z17
	VMOVDQU64 Table_symRcpLo(AX), Z18
	VMOVDQU64 Table_symRcpHi(AX), Z19
	SHLQ $6, CX

encodeSmallStep:
	VMOVDQU64 -64(DI)(CX*1), Z3
	VPORQ Z3, Z14, Z14
	VPERMB Z16, Z3, Z4
	VPERMB Z17, Z3, Z5
	VPERMB Z18, Z3, Z6
	VPERMB Z19, Z3, Z7
	VPTESTNMB Z4, Z4, K1
	KORQ K1, K7, K7
	VPCMPUB $5, Z4, Z0, K2
	EMIT
	FREQ_WORDS
	RETREAT
	SUBQ $64, CX
	JNZ  encodeSmallStep

	STORE_STATE
	MOVL $0xc0c0c0c0, DX // a symbol of 64 or more has one of these bits
	VPBROADCASTD DX, Z4
	VPTESTMB Z4, Z14, K1
	KORQ K1, K7, K7
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+56(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+48(FP)
	RET

// func decodeTernaryAVX512(st *State, t *TernaryTable, dst, ctx *byte, steps int, src *byte, avail int) (left, pos int, top uint8)
//
// As decodeAVX512; top is the greatest context in the steps done, which the
// caller checks afterwards: look-ups take it modulo 64, so nothing else can come
// of a wrong one than wrong symbols.
TEXT ·decodeTernaryAVX512(SB), NOSPLIT, $0-73
	MOVQ st+0(FP), BX
	MOVQ t+8(FP), AX
	MOVQ dst+16(FP), DI
	MOVQ ctx+24(FP), DX
	MOVQ steps+32(FP), CX
	MOVQ src+40(FP), SI
	MOVQ avail+48(FP), R9
	LEAQ -64(SI)(R9*1), R9
	SUBQ DI, DX // contexts lie at (DI)(DX*1)
	MOVQ DX, R11
	LOW_BYTES
	LOAD_STATE
	VPTERNLOGD $0xff, Z15, Z15, Z15
	VPXORQ Z14, Z14, Z14 // the greatest contexts
	VMOVDQU64 TernaryTable_bound1(AX), Z16
	VMOVDQU64 TernaryTable_bound2(AX), Z17
	VMOVDQU64 (TernaryTable_rankFreq+0)(AX), Z18
	VMOVDQU64 (TernaryTable_rankFreq+64)(AX), Z19
	VMOVDQU64 (TernaryTable_rankFreq+128)(AX), Z20
	VMOVDQU64 (TernaryTable_rankSym+0)(AX), Z21
	VMOVDQU64 (TernaryTable_rankSym+64)(AX), Z22
	VMOVDQU64 (TernaryTable_rankSym+128)(AX), Z23

ternaryStep:
	CMPQ SI, R9
	JGT  ternaryEnd
	VMOVDQU64 (SI), Z8
	VMOVDQU64 (DI)(R11*1), Z3
	VPMAXUB Z3, Z14, Z14
	VPERMB Z16, Z3, Z6
	VPERMB Z17, Z3, Z7
	VPERMB Z18, Z3, Z4
	VPERMB Z19, Z3, Z9
	VPERMB Z20, Z3, Z10
	VPERMB Z21, Z3, Z11
	VPERMB Z22, Z3, Z12
	VPERMB Z23, Z3, Z13
	// K1: the slot is the second symbol's or the third's; K3: the third's.
	VPCMPUB $5, Z6, Z1, K1
	VPCMPUB $5, Z7, Z1, K3
	VMOVDQU8 Z9, K1, Z4
	VMOVDQU8 Z10, K3, Z4
	VMOVDQU8 Z12, K1, Z11
	VMOVDQU8 Z13, K3, Z11
	VMOVDQU64 Z11, (DI)
	VMOVDQA64 Z1, Z5
	VPSUBB Z6, Z1, K1, Z5
	VPSUBB Z7, Z1, K3, Z5
	ADDQ $64, DI
	FREQ_WORDS
	VPSUBW Z15, Z12, Z12 // the table has frequency - 1: 1 to 256
	VPSUBW Z15, Z13, Z13
	ADVANCE
	DECQ CX
	JNZ  ternaryStep

ternaryEnd:
	STORE_STATE
	VEXTRACTI64X4 $1, Z14, Y3
	VPMAXUB Y3, Y14, Y3
	VEXTRACTI128 $1, Y3, X4
	VPMAXUB X4, X3, X3
	VPSRLDQ $8, X3, X4
	VPMAXUB X4, X3, X3
	VPSRLDQ $4, X3, X4
	VPMAXUB X4, X3, X3
	VPSRLDQ $2, X3, X4
	VPMAXUB X4, X3, X3
	VPSRLDQ $1, X3, X4
	VPMAXUB X4, X3, X3
	VPEXTRB $0, X3, AX
	VZEROUPPER
	MOVB AX, top+72(FP)
	MOVQ CX, left+56(FP)
	SUBQ src+40(FP), SI
	MOVQ SI, pos+64(FP)
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
	VMOVDQU64 TernaryTable_symFreq(AX), Z16
	VMOVDQU64 TernaryTable_symStart(AX), Z17
	VMOVDQU64 TernaryTable_symRcpLo(AX), Z18
	VMOVDQU64 TernaryTable_symRcpHi(AX), Z19
	MOVL $0x02020202, DX
	VPBROADCASTD DX, Z20 // the greatest symbol
	MOVQ TernaryTable_contexts(AX), DX
	VPBROADCASTB DX, Z21 // the number of contexts
	SHLQ $6, CX

encodeTernaryStep:
	VMOVDQU64 -64(DI)(CX*1), Z3
	VMOVDQU64 -64(R11)(CX*1), Z4
	VPCMPUB $6, Z20, Z3, K1 // symbol > 2
	VPCMPUB $5, Z21, Z4, K3 // context >= contexts
	KORQ K1, K7, K7
	KORQ K3, K7, K7
	VPADDB Z4, Z3, Z3
	VPADDB Z4, Z4, Z4
	VPADDB Z4, Z3, Z3 // 3 context + symbol
	VPERMB Z16, Z3, Z4
	VPERMB Z17, Z3, Z5
	VPERMB Z18, Z3, Z6
	VPERMB Z19, Z3, Z7
	VPORQ Z6, Z7, Z8 // a reciprocal of 0: no slot
	VPTESTNMB Z8, Z8, K1
	KORQ K1, K7, K7
	VPCMPUB $6, Z4, Z0, K2 // hi > frequency - 1
	EMIT
	FREQ_WORDS
	VPSUBW Z15, Z12, Z12
	VPSUBW Z15, Z13, Z13
	RETREAT
	SUBQ $64, CX
	JNZ  encodeTernaryStep

	STORE_STATE
	VZEROUPPER
	KMOVQ K7, AX
	MOVQ AX, bad+64(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+56(FP)
	RET
