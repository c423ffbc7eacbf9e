// Package listen makes Unix-socket listeners that survive what happens to
// daemons: a predecessor that died and left its socket file, a second daemon
// started by mistake, and the limit of open files.
//
// Invariants:
//
//   - A path is served by one process. A lock file beside it decides who; a
//     socket file whose owner is dead is replaced, anything else that lies at
//     the path is left alone and is an error.
//   - Accept fails only when the listener is closed. At the limit of open
//     files one spare descriptor is given up to take the connection, to say no
//     to it and to close it, so that callers get an answer instead of silence.
//
// Accept is for one goroutine; Close may be called from any.
package listen
