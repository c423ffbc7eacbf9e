// Package codec packs the KV bytes of a part into fewer bytes: unchanged
// (raw), without loss (lossless), or quantized at up to four nested levels in
// one object, as they are (plain) or after a transform that was calibrated for
// the model (calibrated, codec/basis). FORMAT.md is the specification of the
// bytes.
//
// Invariants:
//   - Every byte sequence is hostile. The size of the output comes from the
//     caller's Shape; the object must agree with it. A count or length is
//     checked against the bytes that are there before anything is allocated by
//     it, and what a Reader allocates is bounded by the header's own length.
//   - Checksums cover stored bytes and are verified before those are decoded.
//   - The same input and Params give the same object, on every platform:
//     integer histograms, and float32 arithmetic in a fixed order that no
//     compiler may fuse. Opaque bytes do for one version of the zstd library.
//   - Decoding is bit-identical on every platform: plain rounds one addition in
//     float32 and one conversion to the output type; calibrated has one fused
//     operation for each component, in ascending order.
//   - What one basis coded is a miss to a reader that finds none of this name.
//   - What cannot be quantized (NaN, infinities, no variance, a range that the
//     steps do not span) is kept exactly. What does not shrink is kept raw.
//
// Concurrency: an Encoder or a Reader belongs to one goroutine at a time; any
// number of them work beside one another. Shape and Params are not kept.
//
// Tiers use it through storage/coded, with one level in an object and without
// calibration; `larder codec` and `larder calibrate` have both. Params.Plan and
// steps for each layer are set by tests only so far.
//
// It does not: know part ids, tiers or requests, read files, start
// goroutines, choose levels for a namespace.
package codec
