// Package daemon starts larderd as a process of its own, for tests and
// benchmarks: sockets, state and memory in a folder of its own, nothing taken
// from the caller's environment.
//
// A Daemon is used by one goroutine at a time; it dies with the thread of the
// test or benchmark that started it at the latest.
package daemon
