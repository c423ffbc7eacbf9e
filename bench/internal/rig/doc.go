// Package rig holds what benchmark sets are built from: prefaulted memory, CPU
// clocks of processes, the bare echo, the baselines, and a Python
// worker.
//
// Whatever it starts, its owner stops with Close. Nothing here is safe for
// concurrent use: arms run one after the other.
package rig
