package daemon

import "golang.org/x/sys/unix"

// monotonic is CLOCK_MONOTONIC, the clock that clients compare deadlines with.
type monotonic struct{}

// MonotonicNanos implements arena.Clock.
func (monotonic) MonotonicNanos() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("daemon: CLOCK_MONOTONIC: " + err.Error())
	}
	return t.Nano()
}
