package deadline

import (
	"time"

	"github.com/larderkv/larder/api/fault"
)

// Prefill is what computing tokens takes, in the form that the connector fits
// to an engine's steps (larder.prefill_cost): a fixed time for each step, one for
// each token, and one for each pair of a token with one before it, since
// attention reads all of them. Seconds.
type Prefill struct {
	Step, Token, Pair float64
	// StepTokens is how many tokens a step computes; 0: all in one.
	StepTokens int
}

func (p Prefill) validate() error {
	for _, v := range []float64{p.Step, p.Token, p.Pair} {
		if !(v >= 0 && v < 1e9) {
			return fault.New(fault.Invalid, "prefill", "a time that is negative or endless").With(v, nil)
		}
	}
	if p.StepTokens < 0 {
		return fault.New(fault.Invalid, "prefill", "tokens of a step").With(p.StepTokens, nil)
	}
	return nil
}

// Cost is what computing the tokens [begin, end) of a prompt takes.
func (p Prefill) Cost(begin, end int) time.Duration {
	if begin >= end {
		return 0
	}
	a, b := float64(begin), float64(end)
	steps := 1
	if p.StepTokens > 0 {
		steps = (end - begin + p.StepTokens - 1) / p.StepTokens
	}
	s := float64(steps)*p.Step + (b-a)*p.Token + (b*b-a*a)/2*p.Pair
	return time.Duration(min(s, 1e9) * float64(time.Second))
}
