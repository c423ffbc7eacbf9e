package deadline

import (
	"cmp"
	"slices"
	"time"

	"github.com/larderkv/larder/api/fault"
)

// RateOptions are those of a Rate. Zero values take the defaults.
type RateOptions struct {
	// Quantile of throughput that is counted on, over time: 0.25 (default) is
	// what the link fell below in a quarter of the time. Higher ones lose
	// deadlines where a link varies, lower ones compute what could have come.
	Quantile float64
	// Window is how many samples are remembered: 64 by default, at most 4096.
	Window int
	// Grain is how long a sample is at least: 100 ms by default. Shorter ones
	// take each buffer's burst for the link.
	Grain time.Duration
}

// MaxWindow bounds RateOptions.Window.
const MaxWindow = 4096

// sample is what came in some time.
type sample struct{ rate, seconds float64 }

// Rate is the running lower quantile of a link's throughput: a low figure, so
// that plans made with it mostly hold. It may outlive a request: then the next
// one does not begin without knowledge.
type Rate struct {
	o       RateOptions
	samples []sample // a ring once it is full
	oldest  int
	// What came since the last sample.
	bytes   int64
	seconds float64
	sorted  []sample
}

// NewRate returns a Rate that has seen nothing. Invalid: an option out of range.
func NewRate(o RateOptions) (*Rate, error) {
	if o.Quantile == 0 {
		o.Quantile = 0.25
	}
	if o.Window == 0 {
		o.Window = 64
	}
	if o.Grain == 0 {
		o.Grain = 100 * time.Millisecond
	}
	if !(o.Quantile > 0 && o.Quantile <= 1) {
		return nil, fault.New(fault.Invalid, "quantile", "not in (0, 1]").With(o.Quantile, 1)
	}
	if o.Window < 1 || o.Window > MaxWindow {
		return nil, fault.New(fault.Invalid, "window", "out of range").With(o.Window, MaxWindow)
	}
	if o.Grain < 0 {
		return nil, fault.New(fault.Invalid, "grain", "negative").With(o.Grain, nil)
	}
	return &Rate{o: o, samples: make([]sample, 0, o.Window), sorted: make([]sample, 0, o.Window)}, nil
}

// Observe takes that so many bytes came in so much time, all of which something
// was on its way. 0 bytes say that the link was silent: a caller that waits says
// so, or the silence is not known before it ends.
func (r *Rate) Observe(bytes int64, took time.Duration) {
	r.bytes += max(0, bytes)
	r.seconds += max(0, took).Seconds()
	if r.seconds <= 0 || r.seconds < r.o.Grain.Seconds() {
		return
	}
	s := sample{float64(r.bytes) / r.seconds, r.seconds}
	if len(r.samples) < r.o.Window {
		r.samples = append(r.samples, s)
	} else {
		r.samples[r.oldest] = s
		r.oldest = (r.oldest + 1) % r.o.Window
	}
	r.bytes, r.seconds = 0, 0
}

// Samples is how many samples are remembered.
func (r *Rate) Samples() int { return len(r.samples) }

// Estimate is what to expect of a link, in bytes a second; zeros if nothing is
// known.
type Estimate struct {
	// Lower is what may be counted on: what has to be there in time is planned
	// with it.
	Lower float64
	// Mean is what comes on average: what may be given up is asked for if it is
	// likely to come.
	Mean float64
}

// Estimate returns the lower quantile and the mean of what is remembered.
//
// With n samples whose least stands for more than the quantile (n < 1/Quantile),
// Lower is n/(n+1) of the least: half of a single one, two thirds of the lower of
// two. Before the first sample is complete, it is half of what came so far.
func (r *Rate) Estimate() Estimate {
	n := len(r.samples)
	if n == 0 {
		if r.seconds <= 0 {
			return Estimate{}
		}
		mean := float64(r.bytes) / r.seconds
		return Estimate{Lower: mean / 2, Mean: mean}
	}
	r.sorted = append(r.sorted[:0], r.samples...)
	slices.SortFunc(r.sorted, func(a, b sample) int { return cmp.Compare(a.rate, b.rate) })
	var seconds, bytes float64
	for _, s := range r.sorted {
		seconds += s.seconds
		bytes += s.seconds * s.rate
	}
	e := Estimate{Mean: bytes / seconds}
	if float64(n)*r.o.Quantile < 1 {
		e.Lower = r.sorted[0].rate * float64(n) / float64(n+1)
		return e
	}
	below := 0.0
	for _, s := range r.sorted {
		e.Lower = s.rate
		if below += s.seconds; below >= r.o.Quantile*seconds {
			break
		}
	}
	return e
}
