package client

import (
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
)

// breaker fails calls at once after a run of failures, so that an engine does
// not wait for a sick daemon again and again. After a pause it lets one call
// through; that call decides.
type breaker struct {
	threshold int
	pause     time.Duration
	now       func() time.Time

	mu       sync.Mutex
	failures int
	until    time.Time // closed while zero
	probing  bool
	opens    int64
}

// allow says whether a call may start. A call that was allowed must report
// its outcome through done, with the same probe.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return false, nil
	}
	left := b.until.Sub(b.now())
	if left > 0 || b.probing {
		return false, fault.New(fault.Unavailable, "", "the circuit breaker is open after %d failures in a row", b.failures).
			With(nil, max(left, 0).Round(time.Millisecond).String()+" more")
	}
	b.probing = true
	return true, nil
}

// done takes the outcome of an allowed call. It returns true if a probe
// failed: the session deserves no more trust.
func (b *breaker) done(probe bool, outcome outcome) (giveUp bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch outcome {
	case answered:
		b.failures = 0
		b.until = time.Time{}
	case failed:
		b.failures++
		if probe || b.until.IsZero() && b.failures >= b.threshold {
			b.until = b.now().Add(b.pause)
			b.opens++
		}
		return probe
	case unknown:
	}
	return false
}

func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until.IsZero()
}

func (b *breaker) opened() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opens
}

// reset closes the breaker: a new session has just been welcomed.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.until, b.probing = 0, time.Time{}, false
}

// outcome is what a call says about the daemon's health.
type outcome int

const (
	answered outcome = iota // also with an error that is a plain no
	failed                  // no answer in time, or the session ended
	unknown                 // the caller lost its patience
)
