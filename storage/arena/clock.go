package arena

import "golang.org/x/sys/unix"

type systemClock struct{}

// MonotonicNanos reads the clock that clients read: Go's own monotonic time
// has another origin.
func (systemClock) MonotonicNanos() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("arena: CLOCK_MONOTONIC: " + err.Error())
	}
	return t.Nano()
}
