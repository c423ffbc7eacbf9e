package rans

// What avx2_amd64.s has; its comments say what each function may touch.

//go:noescape
func decodeAVX2(st *State, dec *uint32, dst *byte, steps int, src *byte, avail int) (left, pos int)

//go:noescape
func encodeAVX2(st *State, enc *uint32, dst *byte, end int, src *byte, steps int) (size int, bad uint64)
