// The AVX-512 kernels: 64 lanes in two registers.
//
// Register plan, the same in every kernel here:
//
//	Z0   hi: the upper byte of each lane's state, lane l in byte l
//	Z1   lo: the lower byte of each lane's state
//	Z2   0x00ff in every word
//	Z3-Z15   scratch, no value lives from one step to the next, but for
//	         constants and accumulators that the kernel's head names
//	Z16-Z31  tables, where they stay from step to step
//	SI   the next byte of the body (decode), the last one written (encode)
//	DI   the symbols
//	CX   steps that are left, of the run where there are runs
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

// LOAD_STATE: hi and lo from the words at (p); Z4 and Z5 are scratch.
#define LOAD_STATE(p, yhi, hi, ylo, lo) \
	VMOVDQU64 (p), Z4; \
	VMOVDQU64 64(p), Z5; \
	VPMOVWB Z4, ylo; \
	VPMOVWB Z5, yhi; \
	VINSERTI64X4 $1, yhi, lo, lo; \
	VPSRLW $8, Z4, Z4; \
	VPSRLW $8, Z5, Z5; \
	VPMOVWB Z4, yhi; \
	VPMOVWB Z5, Y5; \
	VINSERTI64X4 $1, Y5, hi, hi

// STORE_STATE: the words at (p) from hi and lo; Z4-Z7 are scratch.
#define STORE_STATE(p, yhi, hi, ylo, lo) \
	VPMOVZXBW yhi, Z4; \
	VPMOVZXBW ylo, Z5; \
	VEXTRACTI64X4 $1, hi, Y6; \
	VEXTRACTI64X4 $1, lo, Y7; \
	VPMOVZXBW Y6, Z6; \
	VPMOVZXBW Y7, Z7; \
	VPSLLW $8, Z4, Z4; \
	VPSLLW $8, Z6, Z6; \
	VPORQ Z5, Z4, Z4; \
	VPORQ Z7, Z6, Z6; \
	VMOVDQU64 Z4, (p); \
	VMOVDQU64 Z6, 64(p)

// LOW_BYTES: the mask in Z2; DX is scratch.
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

// LOOKUP_SLOT: the same from the plane of the table at t.
#define LOOKUP_SLOT(plane, t, idx, tmp, dst) \
	VMOVDQU64 (plane+0)(t), dst; \
	VMOVDQU64 (plane+128)(t), tmp; \
	VPERMT2B (plane+64)(t), idx, dst; \
	VPERMT2B (plane+192)(t), idx, tmp; \
	VMOVDQU8 tmp, K1, dst

// FREQ_WORDS: the bytes of Z4 as words, even in Z12 and odd in Z13.
#define FREQ_WORDS \
	VPANDD Z2, Z4, Z12; \
	VPSRLW $8, Z4, Z13

// ADVANCE: what a decoder does with the frequencies in Z12 and Z13 and the biases
// in Z5. x = freq * hi + bias, and a lane below 256 takes one more byte. Z8 has
// the next 64 bytes of the body; src moves on. No step takes more than 64.
//	Z6, Z7   even and odd products
//	K2, R8   the lanes that take a byte, and their number
#define ADVANCE(hi, lo, src) \
	VPANDD Z2, hi, Z6; \
	VPSRLW $8, hi, Z7; \
	VPMULLW Z12, Z6, Z6; \
	VPMULLW Z13, Z7, Z7; \
	VPANDD Z2, Z5, Z9; \
	VPSRLW $8, Z5, Z5; \
	VPADDW Z9, Z6, Z6; \
	VPADDW Z5, Z7, Z7; \
	VPSLLW $8, Z7, lo; \
	VPSRLW $8, Z6, hi; \
	PICK_LOW(Z6, lo); \
	PICK_HIGH(Z7, hi); \
	VPTESTNMB hi, hi, K2; \
	VMOVDQU8 lo, K2, hi; \
	VPEXPANDB Z8, K2, lo; \
	KMOVQ K2, R8; \
	POPCNTQ R8, R8; \
	ADDQ R8, src

// DECODE_STEP: one step with the table at t, from src into dst; both move on.
#define DECODE_STEP(hi, lo, t, src, dst) \
	VMOVDQU64 (src), Z8; \
	VPMOVB2M lo, K1; \
	LOOKUP_SLOT(Table_slotFreq, t, lo, Z9, Z4); \
	LOOKUP_SLOT(Table_slotBias, t, lo, Z10, Z5); \
	LOOKUP_SLOT(Table_slotSym, t, lo, Z11, Z3); \
	VMOVDQU64 Z3, (dst); \
	ADDQ $64, dst; \
	FREQ_WORDS; \
	ADVANCE(hi, lo, src)

// DECODE_STEP_NARROW: the same with a narrow table. Symbols by slot, as there; what
// belongs to a symbol by its narrow index, in one look-up each.
#define DECODE_STEP_NARROW(hi, lo, t, src, dst) \
	VMOVDQU64 (src), Z8; \
	VPMOVB2M lo, K1; \
	LOOKUP_SLOT(Table_slotSym, t, lo, Z11, Z3); \
	VPBROADCASTD Table_before4(t), Z9; \
	VMOVDQU64 Z3, (dst); \
	VPSUBUSB Z9, Z3, Z9; \
	VPERMB Table_narrowFreq(t), Z9, Z4; \
	VPERMB Table_narrowStart(t), Z9, Z5; \
	VPSUBB Z5, lo, Z5; \
	ADDQ $64, dst; \
	FREQ_WORDS; \
	ADVANCE(hi, lo, src)

// ASK: the cursor at c asks for the next two lines to be written, if it has any:
// PREFETCHW (R8) and 64(R8), which the assembler does not know. R8 is scratch.
#define ASK(c) \
	MOVQ cursor_own(c), R8; \
	BYTE $0x41; BYTE $0x0f; WORD $0x080d; \
	BYTE $0x41; LONG $0x40480d0f; \
	ADDQ $128, R8; \
	MOVQ R8, cursor_own(c); \
	DECQ cursor_ownSteps(c); \
	JNZ 5(PC); \
	ADDQ cursor_apart(c), R8; \
	MOVQ R8, cursor_own(c); \
	MOVQ cursor_ownRow(c), R8; \
	MOVQ R8, cursor_ownSteps(c)

// NEXT_RUN: table and steps of the next run of the cursor at c, which are done at
// once, by storing it, if the table has one symbol. To full when there are steps
// to decode, to end when no run is left. R8 and Z3 are scratch.
#define NEXT_RUN(again, full, end, c, t, steps, dst) \
again: \
	MOVQ cursor_next(c), R8; \
	CMPQ R8, (cursor_runs+8)(c); \
	JGE end; \
	INCQ cursor_next(c); \
	SHLQ $4, R8; \
	ADDQ cursor_runs(c), R8; \
	MOVQ Run_Table(R8), t; \
	MOVQ Run_Steps(R8), steps; \
	CMPQ Table_symbols(t), $1; \
	JNE full; \
	VPBROADCASTB Table_slotSym(t), Z3; \
	VMOVDQU64 Z3, (dst); \
	ADDQ $64, dst; \
	DECQ steps; \
	JNZ -3(PC); \
	JMP again

// TAKE_CURSOR and LEAVE_CURSOR: registers from and to the cursor at c. last is
// the last place in src at which a step may begin.
#define TAKE_CURSOR(c, t, steps, src, dst, last) \
	MOVQ cursor_table(c), t; \
	MOVQ cursor_steps(c), steps; \
	MOVQ cursor_src(c), src; \
	MOVQ (cursor_src+8)(c), last; \
	LEAQ -64(src)(last*1), last; \
	ADDQ cursor_pos(c), src; \
	MOVQ cursor_dst(c), dst; \
	ADDQ cursor_at(c), dst

#define LEAVE_CURSOR(c, t, steps, src, dst) \
	MOVQ t, cursor_table(c); \
	MOVQ steps, cursor_steps(c); \
	SUBQ cursor_src(c), src; \
	MOVQ src, cursor_pos(c); \
	SUBQ cursor_dst(c), dst; \
	MOVQ dst, cursor_at(c)

// EMIT: a lane in K2, whose hi is at least its symbol's frequency, emits lo and
// goes on with hi alone. at moves down.
//	R8       the number of lanes that emit; ones has all bits set
#define EMIT(hi, lo, at, ones) \
	VPCOMPRESSB.Z lo, K2, Z3; \
	VMOVDQU8 hi, K2, lo; \
	KNOTQ K2, K3; \
	VMOVDQU8.Z hi, K3, hi; \
	KMOVQ K2, R8; \
	POPCNTQ R8, R8; \
	SUBQ R8, at; \
	BZHIQ R8, ones, R8; \
	KMOVQ R8, K2; \
	VMOVDQU8 Z3, K2, (at)

// RETREAT: x becomes 256 (x / freq) + x mod freq + start, with, for each lane's
// symbol, the frequencies in Z12 and Z13, the first slot in Z5, and
// floor(65535 / frequency) in Z6 (low bytes) and Z7 (high bytes).
//
// The quotient comes from the high half of x * reciprocal: x < 256 freq, so it
// is right or 1 too small, and a remainder of freq or more says which.
//	Z15      -1 in every word
//	Z8, Z9   x, even and odd; then the remainders, and with start the lower bytes
//	Z10, Z11 reciprocals, then quotients: the upper bytes
#define RETREAT(hi, lo) \
	VPSLLW $8, hi, Z8; \
	VPSRLW $8, lo, Z9; \
	PICK_LOW(lo, Z8); \
	PICK_HIGH(hi, Z9); \
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
	VPSLLW $8, Z11, hi; \
	VPSLLW $8, Z9, lo; \
	VPORQ Z10, hi, hi; \
	VPORQ Z8, lo, lo; \
	VPADDB Z5, lo, lo

// ENCODE_STEP: one step of the symbols at symbols + offset with the narrow table
// at t, into the bytes before at. wrong accumulates the narrow indices' bits, and
// bad the lanes whose index has no slot.
//
// Symbols from 1 to before, which is in every byte of its register, have the index
// of symbol 0: least accumulates the smallest symbol - 1 (255 of symbol 0). most is in
// every byte of its register, too.
#define ENCODE_STEP(hi, lo, t, symbols, offset, at, ones, wrong, bad, before, most, least) \
	VMOVDQU64 -64(symbols)(offset*1), Z4; \
	VPSUBUSB before, Z4, Z3; \
	VPADDB Z15, Z4, Z4; \
	VPMINUB most, Z3, Z3; \
	VPORQ Z3, wrong, wrong; \
	VPMINUB Z4, least, least; \
	VPERMB Table_narrowFreq(t), Z3, Z4; \
	VPERMB Table_narrowStart(t), Z3, Z5; \
	VPERMB Table_narrowRcpLo(t), Z3, Z6; \
	VPERMB Table_narrowRcpHi(t), Z3, Z7; \
	VPTESTNMB Z4, Z4, K1; \
	KORQ K1, bad, bad; \
	VPCMPUB $5, Z4, hi, K2; \
	EMIT(hi, lo, at, ones); \
	FREQ_WORDS; \
	RETREAT(hi, lo)

// NARROW: adds to bad what ENCODE_STEP's other accumulators know: an index of 64
// or more has one of the bits in Z4, and symbols from 1 to none, which is in every byte
// of its register, have no slot. Z4 and DX are scratch.
#define NARROW(wrong, bad, none, least) \
	MOVL $0xc0c0c0c0, DX; \
	VPBROADCASTD DX, Z4; \
	VPTESTMB Z4, wrong, K1; \
	KORQ K1, bad, bad; \
	VPCMPUB $1, none, least, K1; \
	KORQ K1, bad, bad

// TERNARY_ENCODE_STEP: one step of ternary symbols and their contexts with the
// table at t. bad accumulates lanes whose symbol is above 2, whose context is not
// in the table, or whose symbol has no slot in its context (its reciprocal is 0).
//	Z20      2 in every byte; count has the number of contexts
#define TERNARY_ENCODE_STEP(hi, lo, t, count, symbols, ctx, offset, at, ones, bad) \
	VMOVDQU64 -64(symbols)(offset*1), Z3; \
	VMOVDQU64 -64(ctx)(offset*1), Z4; \
	VPCMPUB $6, Z20, Z3, K1; \
	VPCMPUB $5, count, Z4, K3; \
	KORQ K1, bad, bad; \
	KORQ K3, bad, bad; \
	VPADDB Z4, Z3, Z3; \
	VPADDB Z4, Z4, Z4; \
	VPADDB Z4, Z3, Z3; \
	VPERMB TernaryTable_symFreq(t), Z3, Z4; \
	VPERMB TernaryTable_symStart(t), Z3, Z5; \
	VPERMB TernaryTable_symRcpLo(t), Z3, Z6; \
	VPERMB TernaryTable_symRcpHi(t), Z3, Z7; \
	VPORQ Z6, Z7, Z8; \
	VPTESTNMB Z8, Z8, K1; \
	KORQ K1, bad, bad; \
	VPCMPUB $6, Z4, hi, K2; \
	EMIT(hi, lo, at, ones); \
	FREQ_WORDS; \
	VPSUBW Z15, Z12, Z12; \
	VPSUBW Z15, Z13, Z13; \
	RETREAT(hi, lo)

// ENCODE_HEAD: arguments and constants of both encoders.
//	K7, Z14  accumulate what is wrong with symbols
#define ENCODE_HEAD \
	LOW_BYTES; \
	LOAD_STATE(BX, Y0, Z0, Y1, Z1); \
	VPTERNLOGD $0xff, Z15, Z15, Z15; \
	VPXORQ Z14, Z14, Z14; \
	KXORQ K7, K7, K7; \
	MOVQ $-1, R10

// TERNARY_STEP: one step with the contexts at dst + ctx and the table at t, from
// src into dst; both move on. Z15 has -1 in every word.
//	K1       lanes whose slot is the second symbol's or the third's
//	K3       the third's
//	Z4       frequency - 1; Z5 slot - first slot; Z11 symbol
#define TERNARY_STEP(hi, lo, t, ctx, src, dst) \
	VMOVDQU64 (src), Z8; \
	VMOVDQU64 (dst)(ctx*1), Z3; \
	VPERMB TernaryTable_bound1(t), Z3, Z6; \
	VPERMB TernaryTable_bound2(t), Z3, Z7; \
	VPERMB (TernaryTable_rankFreq+0)(t), Z3, Z4; \
	VPERMB (TernaryTable_rankFreq+64)(t), Z3, Z9; \
	VPERMB (TernaryTable_rankFreq+128)(t), Z3, Z10; \
	VPERMB (TernaryTable_rankSym+0)(t), Z3, Z11; \
	VPERMB (TernaryTable_rankSym+64)(t), Z3, Z12; \
	VPERMB (TernaryTable_rankSym+128)(t), Z3, Z13; \
	VPCMPUB $5, Z6, lo, K1; \
	VPCMPUB $5, Z7, lo, K3; \
	VMOVDQU8 Z9, K1, Z4; \
	VMOVDQU8 Z10, K3, Z4; \
	VMOVDQU8 Z12, K1, Z11; \
	VMOVDQU8 Z13, K3, Z11; \
	VMOVDQU64 Z11, (dst); \
	VMOVDQA64 lo, Z5; \
	VPSUBB Z6, lo, K1, Z5; \
	VPSUBB Z7, lo, K3, Z5; \
	ADDQ $64, dst; \
	FREQ_WORDS; \
	VPSUBW Z15, Z12, Z12; \
	VPSUBW Z15, Z13, Z13; \
	ADVANCE(hi, lo, src)

// As TAKE_CURSOR and LEAVE_CURSOR. ctx becomes what to add to dst.
#define TAKE_TERNARY(c, t, ctx, src, dst, last) \
	MOVQ ternaryCursor_table(c), t; \
	MOVQ ternaryCursor_src(c), src; \
	MOVQ (ternaryCursor_src+8)(c), last; \
	LEAQ -64(src)(last*1), last; \
	ADDQ ternaryCursor_pos(c), src; \
	MOVQ ternaryCursor_dst(c), dst; \
	MOVQ ternaryCursor_ctx(c), ctx; \
	SUBQ dst, ctx; \
	ADDQ ternaryCursor_at(c), dst

#define LEAVE_TERNARY(c, src, dst) \
	SUBQ ternaryCursor_src(c), src; \
	MOVQ src, ternaryCursor_pos(c); \
	SUBQ ternaryCursor_dst(c), dst; \
	MOVQ dst, ternaryCursor_at(c)

// encoder is what the pairs take and leave: states, and where the bytes end (at,
// an offset in dst). bad is not 0 when a symbol or context is wrong.
#define TAKE_ENCODER(p, symbols, at) \
	MOVQ encoder_src(p), symbols; \
	MOVQ encoder_dst(p), at; \
	ADDQ encoder_at(p), at

#define LEAVE_ENCODER(p, at, r) \
	SUBQ encoder_dst(p), at; \
	MOVQ at, encoder_at(p); \
	MOVQ r, encoder_bad(p)

#define PAIR_CONSTANTS \
	LOW_BYTES; \
	VPTERNLOGD $0xff, Z15, Z15, Z15; \
	KXORQ K7, K7, K7; \
	KXORQ K6, K6, K6; \
	MOVQ $-1, R12
