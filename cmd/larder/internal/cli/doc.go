// Package cli is the larder command: one file per subcommand.
//
// A subcommand asks the daemon and prints the answer on Out, as text or (with
// --json) as JSON; everything else goes to Err. An error is one line: kind,
// what was wrong, the value, the limit, a remedy. The exit code says the kind
// (exit.go). Every call has a deadline.
//
// The package keeps no state: Main gets all that it uses.
package cli
