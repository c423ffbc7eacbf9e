// Package calibrate computes a basis (codec/basis) from recorded KV: means and
// covariances of what the units of calibrated objects are, keys turned back, and
// their principal components.
//
// All components of a unit have the same step, which is where least squares put
// the bits: a component narrower than the step is coded as zeros, which cost next
// to nothing, but nothing is left out, so that a prompt unlike the recorded ones
// costs bytes and not quality.
//
// The same input gives the same bytes on one architecture. A Learner belongs to
// one goroutine. It holds one covariance for each unit: 8 bytes x the square of
// its components.
//
// It does not: read files, choose what is representative, know how keys of other
// RoPE kinds than default, linear and llama3 turn.
package calibrate
