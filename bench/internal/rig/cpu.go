package rig

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuSched is the kernel's number for the clock of scheduled CPU time, in the
// id of a process's clock.
const cpuSched = 2

// CPU returns the CPU time that a process has used, all of its threads
// together, to the nanosecond; 0 is this process.
func CPU(pid int) time.Duration {
	clock := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if pid != 0 {
		clock = ^int32(pid)<<3 | cpuSched
	}
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0 // the process has ended: its arm fails by itself
	}
	return time.Duration(ts.Nano())
}
