// Package daemon puts larderd together and runs it.
//
// Order of a start: names and arena, services, sockets, then readiness. Order
// of an end: readiness off, sessions drained (bounded by the option drain),
// streams ended, sockets closed, loops ended, the arena last. Whatever New
// started, Run or Close ends; nothing outlives it.
//
// It holds no logic of its own: who does what is in the packages that it
// wires.
package daemon
