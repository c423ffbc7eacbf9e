package slowlink

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/codec/deadline"
)

// good is the divergence of CacheGen as it ships (bench/RESULTS.md, set
// codec-quality), in nats for each token.
const good = 0.00258

// traces of each kind, and requests over each.
const (
	traces   = 12
	requests = 12
)

// scenario is a kind of link with a prompt that goes over it.
type scenario struct {
	name     string
	chunks   int
	times    float64 // bytes of a token beside the small model's
	deadline time.Duration
	traces   []*Trace
	// whole is what computing the prompt takes, in deadlines; half of it grows with
	// the position. linear: all of it is the same for each token.
	whole  float64
	linear bool
}

// scenarios of the set: recorded and drawn links at the rates that they have. seed
// draws the latter.
func scenarios(seed uint64) ([]scenario, error) {
	hsdpa, err := Recorded("hsdpa")
	if err != nil {
		return nil, err
	}
	lte, err := Recorded("lte")
	if err != nil {
		return nil, err
	}
	var markov, uniform []*Trace
	for i := range uint64(traces) {
		markov = append(markov, Markov(seed+i, 300))
		uniform = append(uniform, Uniform(seed+i, 500*time.Millisecond))
	}
	return []scenario{
		{name: "hsdpa", chunks: 12, times: 1, deadline: time.Minute, traces: hsdpa, whole: 1.5},
		{name: "lte", chunks: 48, times: 1, deadline: 6 * time.Second, traces: lte, whole: 1.5},
		{name: "markov", chunks: 12, times: 1, deadline: 30 * time.Second, traces: markov, whole: 1.5},
		// 128 KiB a token, as in Mistral-7B, and 0.2 s for 1500 tokens, as in CacheGen's
		// evaluation; 9216 tokens.
		{name: "uniform", chunks: 36, times: 32.0 / 3, deadline: 500 * time.Millisecond, traces: uniform, whole: 9216 / 1500 * 0.2 / 0.5, linear: true},
	}, nil
}

// prefill of a scenario.
func (s *scenario) prefill(tokens int) *deadline.Prefill {
	whole, n := s.whole*s.deadline.Seconds(), float64(tokens)
	if s.linear {
		return &deadline.Prefill{Token: whole / n}
	}
	return &deadline.Prefill{Token: whole / 2 / n, Pair: whole / 2 / (n * n / 2)}
}

// run gives the outcomes of a rule, trace after trace.
func (s *scenario) run(ctx context.Context, m *Model, compute bool, by rule) ([]Outcome, error) {
	r := Request{Objects: m.Objects(s.chunks, s.times), Deadline: s.deadline, Loss: m.Loss, Judge: m.OtherLoss}
	if compute {
		r.Prefill = s.prefill(r.tokens(len(r.Objects)))
	}
	var out []Outcome
	for _, t := range s.traces {
		for i := range requests {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			o, err := by(&r, t, t.starts[i*len(t.spans)/requests])
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.name, t.Name, err)
			}
			out = append(out, o)
		}
	}
	return out, nil
}

// arms are what is compared.
type arms struct{ ours, paper, code, best []Outcome }

// figure is a statistic of the requests whose numbers are given.
type figure struct {
	name, unit string
	of         func(a *arms, side func(*arms) []Outcome, which []int) float64
}

func mean(which []int, value func(int) (float64, bool)) float64 {
	sum, n := 0.0, 0
	for _, i := range which {
		if v, ok := value(i); ok {
			sum += v
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

func share(ok bool) float64 {
	if ok {
		return 100
	}
	return 0
}

func figures(d time.Duration, tokens int) []figure {
	met := func(o Outcome) bool { return o.Took <= d+time.Microsecond }
	each := func(value func(Outcome) float64) func(*arms, func(*arms) []Outcome, []int) float64 {
		return func(a *arms, side func(*arms) []Outcome, which []int) float64 {
			return mean(which, func(i int) (float64, bool) { return value(side(a)[i]), true })
		}
	}
	return []figure{
		{"met", "% in time", each(func(o Outcome) float64 { return share(met(o)) })},
		{"late", "% of the deadline, median of what is late", func(a *arms, side func(*arms) []Outcome, which []int) float64 {
			var late []float64
			for _, i := range which {
				if o := side(a)[i]; !met(o) {
					late = append(late, 100*(o.Took-d).Seconds()/d.Seconds())
				}
			}
			if len(late) == 0 {
				return math.NaN()
			}
			return pairs.Median(late)
		}},
		{"good", "% in time, KL <= 0.00258", each(func(o Outcome) float64 { return share(met(o) && o.Loss <= good) })},
		{"kl", "0.001 nats", each(func(o Outcome) float64 { return 1000 * o.Loss })},
		{"kl.both", "0.001 nats, where both are in time", func(a *arms, side func(*arms) []Outcome, which []int) float64 {
			return mean(which, func(i int) (float64, bool) { return 1000 * side(a)[i].Loss, met(a.ours[i]) && met(a.paper[i]) })
		}},
		{"bytes", "MB", each(func(o Outcome) float64 { return float64(o.Bytes) / 1e6 })},
		{"computed", "% of tokens", each(func(o Outcome) float64 { return 100 * float64(o.Computed) / float64(tokens) })},
	}
}

// Options of a run.
type Options struct {
	Seed uint64
	// Only: rows whose name does not contain it are left out.
	Only string
	// Resamples of a bootstrap over traces.
	Resamples int
}

// Run gives the rows: for each kind of link without computing, the same if all
// layers lost the same, with computing, and that
// at a price at which it is only done where fetching would be late, the figures of
// the controller beside the paper's rule, with those of the published code in the
// note. Computing beside fetching is counted as if a suffix could be computed before
// the layers of its prefix are there: more than any engine can.
func Run(ctx context.Context, o Options) ([]report.Row, error) {
	m, err := Measured()
	if err != nil {
		return nil, err
	}
	all, err := scenarios(o.Seed)
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	for i := range all {
		s := &all[i]
		for _, v := range []struct {
			name    string
			compute bool
			model   *Model
			ours    Ours
		}{
			{"", false, m, Ours{Depth: 4}},
			{".even", false, m.even(), Ours{Depth: 4}},
			{".compute", true, m, Ours{Depth: 4}},
			{".compute.late", true, m, Ours{Depth: 4, Price: 1e6}},
			{".compute.beside", true, m, Ours{Depth: 4, Beside: true, LayersFirst: true}},
		} {
			name := "deadline." + s.name + v.name
			list := figures(s.deadline, s.chunks*m.ChunkTokens)
			list = slices.DeleteFunc(list, func(f figure) bool {
				return f.name == "computed" && !v.compute || !strings.Contains(name+"."+f.name, o.Only)
			})
			if len(list) == 0 {
				continue
			}
			var a arms
			for _, arm := range []struct {
				to *[]Outcome
				by rule
			}{{&a.ours, v.ours.run}, {&a.paper, cacheGenPaper}, {&a.code, cacheGenCode}, {&a.best, soonest(v.ours.Beside)}} {
				if *arm.to, err = s.run(ctx, v.model, v.compute, arm.by); err != nil {
					return nil, err
				}
			}
			for _, f := range list {
				rows = append(rows, a.row(name+"."+f.name, f, o.Resamples))
			}
		}
	}
	return rows, nil
}

func ours(a *arms) []Outcome  { return a.ours }
func paper(a *arms) []Outcome { return a.paper }
func code(a *arms) []Outcome  { return a.code }
func best(a *arms) []Outcome  { return a.best }

// row has the interval of our value from a bootstrap over traces.
func (a *arms) row(name string, f figure, resamples int) report.Row {
	g := rand.New(rand.NewPCG(1, 1))
	n := len(a.ours)
	every := make([]int, n)
	for i := range every {
		every[i] = i
	}
	var values []float64
	which := make([]int, 0, n)
	for range resamples {
		which = which[:0]
		for range n / requests {
			t := g.IntN(n / requests)
			which = append(which, every[t*requests:(t+1)*requests]...)
		}
		if v := f.of(a, ours, which); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	r := report.Row{Name: name, Unit: f.unit, Value: f.of(a, ours, every), N: n, Beside: "CacheGen's rule as in the paper"}
	b, c := f.of(a, paper, every), f.of(a, code, every)
	if !math.IsNaN(b) {
		r.Baseline = &b
	}
	if f.name != "kl.both" && !math.IsNaN(c) {
		r.Note = fmt.Sprintf("as in the published code, which knows each chunk's bandwidth: %.3g", c)
	}
	if f.name == "met" {
		r.Note += fmt.Sprintf("; could be in time: %.3g", f.of(a, best, every))
	}
	if math.IsNaN(r.Value) {
		r.Value, r.Note = 0, "there is no such request"
	}
	if len(values) > 0 {
		r.Low, r.High = pairs.Quantile(values, 0.05), pairs.Quantile(values, 0.95)
	}
	return r
}
