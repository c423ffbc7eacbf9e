// Package rows does the codec's arithmetic on rows of channels, many elements
// at a time: what lies between the uncoded bytes of a unit and the symbols of
// its entropy coder.
//
// A unit is tokens x dims elements, token after token. Values are int16 in
// steps of a level; symbols, digits and contexts are bytes.
//
// Invariants: the pure Go functions are the reference, and the assembly gives
// the same, bit for bit: every float32 operation is one rounding, in the same
// order for each channel. Nothing is read or written outside of the slices;
// slices of the wrong length are a broken invariant of the caller and panic.
// Nothing allocates.
//
// An Ops keeps no state and may be used by any number of goroutines at once.
//
// What this package does not do: choose steps, classes or tables, or know any
// format.
package rows
