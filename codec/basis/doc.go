// Package basis is what calibrated objects are decoded by: for each layer, field
// and block of heads a mean, an orthonormal matrix, steps and classes, and the
// cosines and sines by which keys are turned. FORMAT.md is the specification of
// the bytes.
//
// Invariants:
//   - A basis is immutable and named by the SHA-256 of its bytes. Objects carry
//     the name: what another basis coded is a miss, never wrong numbers.
//   - Bytes are hostile until their name is the expected one: lengths follow from
//     a checked header and are compared with what is there before anything is
//     allocated, and all numbers are within bounds that keep every result of
//     decoding finite.
//   - Arithmetic of decoding is float32 with fused additions in ascending order
//     of components, the same on every platform; that of encoding is float32,
//     each operation rounded.
//
// A Basis may be used by any number of goroutines at once.
//
// It does not: compute bases (codec/calibrate), read files, know objects.
package basis
