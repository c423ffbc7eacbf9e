// Package rans is the codec's entropy coder: 64 interleaved range coders
// (rANS) over tables of 256 slots, laid out for wide registers and for one GPU
// warp alike. FORMAT.md is the byte-exact format.
//
// Invariants: equal input gives equal bytes, whichever kernel runs: the pure
// Go one is the reference, and the assembly is tested against it. Every byte
// of a body is hostile: decoding reads nothing outside of the slices that it
// is given, writes nothing outside of dst, and answers corrupt when a body
// ends early, goes on too long, or, for a whole stream, leaves a lane anywhere
// but where an encoder starts. No size is taken from a body. Encode and Decode
// allocate nothing when dst has the capacity.
//
// A Coder keeps no state and may be used by any number of goroutines at once.
// A Table is immutable while a run refers to it; a State belongs to one
// goroutine.
//
// The codec codes two units at once with the pairs (two bodies in one loop), and
// keeps states itself: the streams are used by benchmarks only.
//
// What this package does not do: choose classes and tables, keep lengths,
// offsets and checksums, or find damage that decodes to something plausible:
// that is the container's business, which checks the stored bytes first.
package rans
