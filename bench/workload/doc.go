// Package workload makes what benchmarks, tests and the command's own checks
// store: namespaces whose parts have a wanted size, and chunks with keys of
// their own.
//
// It is deterministic and keeps no state.
package workload
