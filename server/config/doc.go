// Package config is the daemon's configuration: one table of options, filled
// from defaults, one YAML file, the environment and flags, the later over the
// earlier.
//
// The table in options.go is the only place that names an option; the parser,
// the flags, the help text, the printed configuration and the example file all
// come from it.
//
// Invariants:
//
//   - Strict: an unknown key, or a value of the wrong type or outside its
//     range, is an error that names the key, where it came from and the nearest
//     valid key or value. Nothing is guessed and nothing is ignored.
//   - Every value knows its source.
//   - Options marked secret never leave the package in printed form.
//
// A Config is plain data and is not changed after Load, so it may be shared.
// The package opens nothing but the file it is given, and starts nothing.
package config
