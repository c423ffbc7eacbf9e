// Package speed is the benchmark set codec-speed: whole objects, from
// token-major bytes to token-major bytes, on one core; and, for the entropy stage
// alone, package entropy's rows beside huff0.
//
// The KV is synthetic, the same for one seed: 16 layers, 2 heads, 256 tokens, K
// and V of 128 bf16 each, 4 MiB an object. Channels are rounded Gaussians and
// Laplacians with a mean and a width of their own; K has larger means and widths
// that differ more, as measured models have. Four objects rotate, each with its
// own input and output, which is more than the second-level cache holds. Levels
// are those of codec.DefaultStep. The calibrated mode has objects of 4 layers, of one
// model whose keys turn, and a basis that was learned from others of it.
//
// How parts are coded and measured is package coding's.
package speed
