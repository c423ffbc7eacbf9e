// Package bases is the bases of calibrated coding that a daemon has: files of one
// directory, read when it starts, and for each model the one that its KV is coded
// by.
//
// Invariants:
//   - A file is named by its basis: 64 hex digits and ".basis", as larder calibrate
//     writes it into a directory. What it holds has that name, or is left out, and
//     so is what would take more memory, or be one more, than allowed. Each of
//     those is told, and none is a reason not to start.
//   - What is here never changes, and may be used by any number of goroutines.
//   - A model has the basis that the operator says, never one that merely has its
//     shape: steps come from the basis, and those of another model are as fine as
//     its level promises for that model only.
//
// It does not: compute bases (codec/calibrate), say whether one fits KV
// (storage/coded), look at the directory again.
package bases
