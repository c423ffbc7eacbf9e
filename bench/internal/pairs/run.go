package pairs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Sample is what one arm measured.
type Sample struct {
	// Value is the figure in the row's unit: a rate, a latency.
	Value float64
	// Bytes moved and CPU time used by everything that took part, where the
	// arm counts them.
	Bytes int64
	CPU   time.Duration
}

// Arm does a short piece of work (50 to 300 ms) and measures it.
type Arm struct {
	Name string
	Run  func(context.Context) (Sample, error)
}

// Plan says how often the arms run.
type Plan struct {
	// Pairs of each ratio; rounded up to an even number. At least 15.
	Pairs int
	// Resamples of the bootstrap; 0 = 2000.
	Resamples int
	// Attempts to get the control within Tolerance; 0 = 3.
	Attempts int
	// Tolerance around 1 of the control's median; 0 = 0.03.
	Tolerance float64
	// Seed of the bootstrap, so that a result can be computed again.
	Seed uint64
}

func (p Plan) withDefaults() Plan {
	p.Pairs += p.Pairs % 2
	if p.Resamples == 0 {
		p.Resamples = 2000
	}
	if p.Attempts == 0 {
		p.Attempts = 3
	}
	if p.Tolerance == 0 {
		p.Tolerance = 0.03
	}
	return p
}

// Against is our figure beside one baseline.
type Against struct {
	Name string
	// Median of the baseline's samples.
	Value float64
	// Median of the per-pair ratio ours / baseline, and its interval.
	Ratio float64
	Interval
}

// Result is one attempt at one row.
type Result struct {
	// Median of our samples, and the interval of that median.
	Value  float64
	Spread Interval
	// In the order of the arms after the first.
	Against []Against
	// Pairs of each ratio.
	N int
	// Median ratio of neighbouring arms of the same kind, and whether it lies
	// within the tolerance.
	Control float64
	Steady  bool
	// CPU seconds for each GiB of our arm; 0 where the arm does not count.
	CPUPerGiB float64
}

// Measure runs arms until the control is steady, at most plan.Attempts times,
// and returns every attempt in order; the last one is the result. The first
// arm is ours, each further one a baseline. With no baseline the control
// compares our own neighbouring samples.
func Measure(ctx context.Context, plan Plan, arms ...Arm) ([]Result, error) {
	plan = plan.withDefaults()
	if plan.Pairs < 15 || len(arms) == 0 {
		return nil, fmt.Errorf("pairs: %d pairs of %d arms, want at least 15 of 1", plan.Pairs, len(arms))
	}
	// One unmeasured pass warms caches, credits and page tables.
	for _, a := range arms {
		if _, err := a.Run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
	}
	var all []Result
	for range plan.Attempts {
		r, err := measure(ctx, plan, arms)
		if err != nil {
			return all, err
		}
		all = append(all, r)
		if r.Steady {
			break
		}
	}
	return all, nil
}

func measure(ctx context.Context, plan Plan, arms []Arm) (Result, error) {
	samples := make([][]Sample, len(arms))
	for range plan.Pairs / 2 {
		for i := range 2 * len(arms) {
			a := i
			if i >= len(arms) {
				a = 2*len(arms) - 1 - i
			}
			s, err := arms[a].Run(ctx)
			if err != nil {
				return Result{}, fmt.Errorf("%s: %w", arms[a].Name, err)
			}
			samples[a] = append(samples[a], s)
		}
	}
	return summarize(plan, arms, samples), nil
}

func summarize(plan Plan, arms []Arm, samples [][]Sample) Result {
	rng := rand.New(rand.NewPCG(plan.Seed, uint64(len(arms))))
	ours := values(samples[0])
	r := Result{Value: Median(ours), Spread: Bootstrap(rng, ours, plan.Resamples), N: len(ours)}
	var bytes int64
	var cpu time.Duration
	for _, s := range samples[0] {
		bytes += s.Bytes
		cpu += s.CPU
	}
	if bytes > 0 {
		r.CPUPerGiB = cpu.Seconds() / (float64(bytes) / (1 << 30))
	}
	for i := 1; i < len(arms); i++ {
		base := values(samples[i])
		ratios := make([]float64, len(base))
		for j := range base {
			ratios[j] = ours[j] / base[j]
		}
		r.Against = append(r.Against, Against{
			Name:     arms[i].Name,
			Value:    Median(base),
			Ratio:    Median(ratios),
			Interval: Bootstrap(rng, ratios, plan.Resamples),
		})
	}
	r.Control = Median(control(samples))
	r.Steady = r.Control >= 1-plan.Tolerance && r.Control <= 1+plan.Tolerance
	return r
}

// control pairs neighbours of the same kind: our last arm of one round with
// the first of the next, and the two runs of the last arm in the middle of a
// round. The direction alternates, so that a drift cancels out.
func control(samples [][]Sample) []float64 {
	ours, last := values(samples[0]), values(samples[len(samples)-1])
	var ratios []float64
	add := func(a, b float64) {
		if len(ratios)%2 == 1 {
			a, b = b, a
		}
		ratios = append(ratios, a/b)
	}
	for i := 1; i+1 < len(ours); i += 2 {
		add(ours[i], ours[i+1])
	}
	for i := 0; i+1 < len(last); i += 2 {
		add(last[i], last[i+1])
	}
	return ratios
}

func values(s []Sample) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = s[i].Value
	}
	return v
}
