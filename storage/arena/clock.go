package arena

import "golang.org/x/sys/unix"

// SystemClock is the Clock of real life.
type SystemClock struct{}

// MonotonicNanos reads the clock that clients read: Go's own monotonic time
// has another origin.
func (SystemClock) MonotonicNanos() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("arena: CLOCK_MONOTONIC: " + err.Error())
	}
	return t.Nano()
}
