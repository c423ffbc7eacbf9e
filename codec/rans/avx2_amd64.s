#include "go_asm.h"
#include "textflag.h"

// The AVX2 kernels: eight groups of eight lanes, one state in each 32-bit
// element, and one gather of a table entry for each group.
//
// Register plan:
//
//	Y0-Y7    the states: lane 8 k + i in element i of register k
//	Y8-Y11   scratch
//	Y12-Y15  constants, named in each kernel's head
//	SI   the next byte of the body (decode), the last one written (encode)
//	DI   the symbols
//	CX   steps that are left
//	R8, R10, R11, DX   scratch; R13 has 1 in every byte
//
// Bytes go to the lanes that take one by PDEP and are collected by PEXT. Both
// are slow on Zen 2 and earlier, and nowhere else.

#define LOAD_STATE \
	VPMOVZXWD (BX), Y0; \
	VPMOVZXWD 16(BX), Y1; \
	VPMOVZXWD 32(BX), Y2; \
	VPMOVZXWD 48(BX), Y3; \
	VPMOVZXWD 64(BX), Y4; \
	VPMOVZXWD 80(BX), Y5; \
	VPMOVZXWD 96(BX), Y6; \
	VPMOVZXWD 112(BX), Y7

// VPACKUSDW works within halves; VPERMQ puts the quarters in order.
#define STORE_PAIR(a, b, offset) \
	VPACKUSDW b, a, Y8; \
	VPERMQ $0xd8, Y8, Y8; \
	VMOVDQU Y8, offset(BX)

#define STORE_STATE \
	STORE_PAIR(Y0, Y1, 0); \
	STORE_PAIR(Y2, Y3, 32); \
	STORE_PAIR(Y4, Y5, 64); \
	STORE_PAIR(Y6, Y7, 96)

// BYTE_MASK: R8 has a bit for each lane; R10 = a byte of ones for each.
#define BYTE_MASK \
	PDEPQ R13, R8, R10; \
	IMUL3Q $255, R10, R10

// CONSTANT: every element of y is value.
#define CONSTANT(value, x, y) \
	MOVL $value, DX; \
	VMOVD DX, x; \
	VPBROADCASTD x, y

// Picks byte 1 (symbols) or byte 0 (states) of each 32-bit element, once for
// each half.
DATA pickSecond<>+0(SB)/8, $0xffffffff0d090501
DATA pickSecond<>+8(SB)/8, $0xffffffffffffffff
GLOBL pickSecond<>(SB), RODATA|NOPTR, $16
DATA pickFirst<>+0(SB)/8, $0xffffffff0c080400
DATA pickFirst<>+8(SB)/8, $0xffffffffffffffff
GLOBL pickFirst<>(SB), RODATA|NOPTR, $16

// DECODE_GROUP decodes the lanes of register x into the 8 bytes at at(DI).
//	Y10  table entries: frequency | symbol << 8 | bias << 16
//	Y9   all ones where a lane takes a byte
#define DECODE_GROUP(x, at) \
	VPSLLD $24, x, Y8; \
	VPSRLD $24, Y8, Y8; \
	VPCMPEQD Y9, Y9, Y9; \
	VPGATHERDD Y9, (AX)(Y8*4), Y10; \
	VPSRLD $8, x, x; \
	VPOR Y14, x, x; \
	VPAND Y13, Y10, Y11; \
	VPMADDWD Y11, x, x; \
	VPSHUFB Y12, Y10, Y10; \
	VEXTRACTI128 $1, Y10, X11; \
	VPUNPCKLDQ X11, X10, X10; \
	VMOVQ X10, at(DI); \
	VPCMPGTD x, Y15, Y9; \
	VMOVMSKPS Y9, R8; \
	BYTE_MASK; \
	POPCNTL R8, R8; \
	MOVQ (SI), R11; \
	PDEPQ R10, R11, R10; \
	ADDQ R8, SI; \
	VMOVQ R10, X8; \
	VPMOVZXBD X8, Y8; \
	VPSLLD $8, x, Y11; \
	VPOR Y8, Y11, Y11; \
	VPBLENDVB Y9, Y11, x, x

// func decodeAVX2(st *State, dec *uint32, dst *byte, steps int, src *byte, avail int) (left, pos int)
//
// Decodes whole steps while 64 bytes of src are readable at the cursor: a step
// reads at most so many there, 8 for each group. left is the number of steps not
// done, pos the cursor.
//	Y12  pickSecond
//	Y13  0x00ff00ff: frequency and bias of an entry
//	Y14  1 << 16: one multiply-add gives frequency * hi + bias * 1
//	Y15  256
TEXT ·decodeAVX2(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ dec+8(FP), AX
	MOVQ dst+16(FP), DI
	MOVQ steps+24(FP), CX
	MOVQ src+32(FP), SI
	MOVQ avail+40(FP), R9
	LEAQ -64(SI)(R9*1), R9
	MOVQ $0x0101010101010101, R13
	VBROADCASTI128 pickSecond<>(SB), Y12
	CONSTANT(0x00ff00ff, X13, Y13)
	CONSTANT(0x00010000, X14, Y14)
	CONSTANT(256, X15, Y15)
	LOAD_STATE

decodeStep:
	CMPQ SI, R9
	JGT  decodeEnd
	DECODE_GROUP(Y0, 0)
	DECODE_GROUP(Y1, 8)
	DECODE_GROUP(Y2, 16)
	DECODE_GROUP(Y3, 24)
	DECODE_GROUP(Y4, 32)
	DECODE_GROUP(Y5, 40)
	DECODE_GROUP(Y6, 48)
	DECODE_GROUP(Y7, 56)
	ADDQ $64, DI
	DECQ CX
	JNZ  decodeStep

decodeEnd:
	STORE_STATE
	VZEROUPPER
	MOVQ CX, left+48(FP)
	SUBQ src+32(FP), SI
	MOVQ SI, pos+56(FP)
	RET

// ENCODE_GROUP encodes the 8 symbols at at(DI)(CX*1) on the lanes of register x.
// The bytes that lanes emit are collected at the top of a word that is stored
// whole: what it writes below them is overwritten or slack.
//	Y10  table entries: frequency | start << 8 | reciprocal << 16
//	Y8   the frequencies
//	Y9   all ones where a lane emits nothing; then the quotients, as in RETREAT of
//	     avx512_amd64.s
#define ENCODE_GROUP(x, at) \
	VPMOVZXBD at(DI)(CX*1), Y8; \
	VPCMPEQD Y9, Y9, Y9; \
	VPGATHERDD Y9, (AX)(Y8*4), Y10; \
	VPAND Y13, Y10, Y8; \
	VPCMPEQD Y14, Y14, Y14; \
	VPADDD Y14, Y8, Y11; \
	VPOR Y11, Y15, Y15; \
	VPSRLD $8, x, Y11; \
	VPCMPGTD Y11, Y8, Y9; \
	VMOVMSKPS Y9, R8; \
	XORL $0xff, R8; \
	BYTE_MASK; \
	VPSHUFB Y12, x, Y14; \
	VPBLENDVB Y9, x, Y11, x; \
	VEXTRACTI128 $1, Y14, X11; \
	VPUNPCKLDQ X11, X14, X11; \
	VMOVQ X11, R11; \
	PEXTQ R10, R11, R11; \
	POPCNTL R8, R8; \
	LEAQ (R8*8), R10; \
	NEGQ R10; \
	SHLXQ R10, R11, R11; \
	MOVQ R11, -8(SI); \
	SUBQ R8, SI; \
	VPSRLD $16, Y10, Y9; \
	VPMULHUW x, Y9, Y9; \
	VPMULLW Y8, Y9, Y11; \
	VPSUBD Y11, x, x; \
	VPCMPGTD x, Y8, Y11; \
	VPCMPEQD Y14, Y14, Y14; \
	VPSUBD Y14, Y9, Y9; \
	VPADDD Y11, Y9, Y9; \
	VPANDN Y8, Y11, Y11; \
	VPSUBD Y11, x, x; \
	VPSRLD $8, Y10, Y10; \
	VPAND Y13, Y10, Y10; \
	VPADDD Y10, x, x; \
	VPSLLD $8, Y9, Y9; \
	VPADDD Y9, x, x

// func encodeAVX2(st *State, enc *uint32, dst *byte, end int, src *byte, steps int) (size int, bad uint64)
//
// As encodeAVX512, but it writes up to 8 bytes below the first one, too.
//	Y12  pickFirst
//	Y13  255
//	Y14  scratch
//	Y15  collects the frequencies less 1: negative where a symbol has no slot
TEXT ·encodeAVX2(SB), NOSPLIT, $0-64
	MOVQ st+0(FP), BX
	MOVQ enc+8(FP), AX
	MOVQ dst+16(FP), SI
	ADDQ end+24(FP), SI
	MOVQ src+32(FP), DI
	MOVQ steps+40(FP), CX
	MOVQ $0x0101010101010101, R13
	VBROADCASTI128 pickFirst<>(SB), Y12
	CONSTANT(255, X13, Y13)
	VPXOR Y15, Y15, Y15
	LOAD_STATE
	SHLQ $6, CX

encodeStep:
	ENCODE_GROUP(Y7, -8)
	ENCODE_GROUP(Y6, -16)
	ENCODE_GROUP(Y5, -24)
	ENCODE_GROUP(Y4, -32)
	ENCODE_GROUP(Y3, -40)
	ENCODE_GROUP(Y2, -48)
	ENCODE_GROUP(Y1, -56)
	ENCODE_GROUP(Y0, -64)
	SUBQ $64, CX
	JNZ  encodeStep

	STORE_STATE
	VMOVMSKPS Y15, AX
	VZEROUPPER
	MOVQ AX, bad+56(FP)
	MOVQ dst+16(FP), AX
	ADDQ end+24(FP), AX
	SUBQ SI, AX
	MOVQ AX, size+48(FP)
	RET
