package rans

// What avx512_amd64.s has; its comments say what each function may touch.

//go:noescape
func decodeAVX512(c *cursor)

//go:noescape
func decodePairAVX512(a, b *cursor)

//go:noescape
func encodeAVX512(st *State, t *Table, dst *byte, end int, src *byte, steps int) (size int, bad uint64)

//go:noescape
func encodeNarrowAVX512(st *State, t *Table, dst *byte, end int, src *byte, steps int) (size int, bad uint64)

//go:noescape
func decodeTernaryAVX512(c *ternaryCursor, steps int)

//go:noescape
func decodeTernaryPairAVX512(a, b *ternaryCursor, steps int)

//go:noescape
func greatestAVX512(b *byte, groups int) (greatest uint8)

//go:noescape
func encodeTernaryAVX512(st *State, t *TernaryTable, dst *byte, end int, ctx, src *byte, steps int) (size int, bad uint64)

//go:noescape
func encodePairAVX512(a, b *encoder, steps int)

//go:noescape
func encodeTernaryPairAVX512(a, b *encoder, steps int)
