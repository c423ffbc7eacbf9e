package deadline

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// result is what came of a request over a link of constant rate.
type result struct {
	ranges []Range // as asked for
	keep   int
	end    time.Duration // of fetching and computing
	last   time.Duration // what the last range took
	loss   float64
}

// tester is what a test of rapid and one of its own have in common.
type tester interface {
	require.TestingT
	Helper()
}

// drive runs a request over a link of so many bytes a second, which the
// Controller knows, with at most depth ranges on their way, and checks what holds
// at every step.
func drive(t tester, o Options, rate float64, depth int) result {
	t.Helper()
	return driveBy(t, o, rate, depth, func() Estimate { return Estimate{rate, rate} })
}

// driveBy is the same for a Controller that believes what estimate says.
func driveBy(t tester, o Options, rate float64, depth int, estimate func() Estimate) result {
	t.Helper()
	c, err := New(o)
	require.NoError(t, err)
	var r result
	var now, free, computed time.Duration
	type onTheWay struct {
		r  Range
		at time.Duration
	}
	var queue []onTheWay
	n, layers := len(o.Objects), len(o.Losses[0])
	cost := func(keep int) time.Duration {
		if o.Recompute == nil {
			return 0
		}
		begin := o.Recompute.First
		for _, x := range o.Objects[:keep] {
			begin += x.Tokens
		}
		end := begin
		for _, x := range o.Objects[keep:] {
			end += x.Tokens
		}
		return o.Recompute.Cost.Cost(begin, end)
	}
	asked := make([]int, n*layers)
	coarseLeft := func(keep int) bool {
		for i := range o.Objects[:keep] {
			for l := range layers {
				if asked[i*layers+l] == 0 && o.Objects[i].Bytes[0][l] > 0 {
					return true
				}
			}
		}
		return false
	}
	refined, before := false, n
	for range 100000 {
		s := c.Next(now, estimate())
		require.True(t, s.Keep >= 0 && s.Keep <= n)
		if o.Recompute == nil {
			require.Equal(t, n, s.Keep)
		}
		if refined {
			require.LessOrEqual(t, s.Keep, before, "keep rose after refinements began")
		}
		if o.Recompute != nil && o.Recompute.Beside && s.Keep < n && (before == n || s.Keep != before) {
			computed = now + cost(s.Keep)
		}
		before = s.Keep
		switch s.Action {
		case Fetch:
			x := s.Range
			cell := x.Object*layers + x.Layer
			require.Less(t, x.Object, s.Keep, "what is computed was asked for")
			require.Positive(t, x.Bytes)
			require.Equal(t, o.Objects[x.Object].Bytes[x.Pass][x.Layer], x.Bytes)
			require.True(t, x.Pass == 0 && asked[cell] == 0 || x.Pass >= asked[cell] && x.Pass > 0, "a pass twice, or before another one")
			if x.Pass > 0 {
				require.False(t, coarseLeft(s.Keep), "a refinement before a coarse range")
				refined = true
			}
			asked[cell] = x.Pass + 1
			took := time.Duration(float64(x.Bytes) / rate * float64(time.Second))
			free = max(free, now) + took
			r.ranges, r.last = append(r.ranges, x), took
			queue = append(queue, onTheWay{x, free})
			if len(queue) < depth {
				continue
			}
		case Stop:
			require.GreaterOrEqual(t, c.have, s.Keep, "stopped before the coarse level was there")
			r.keep, r.loss = s.Keep, c.Loss(s.Keep)
			r.end = now + cost(s.Keep)
			if o.Recompute != nil && o.Recompute.Beside {
				r.end = max(now, computed)
			}
			require.Equal(t, Stop, c.Next(now, Estimate{rate, rate}).Action, "over is over")
			return r
		case Wait:
			require.True(t, s.Again == 0 || s.Again > now)
			require.True(t, len(queue) > 0 || s.Again > 0, "waits for nothing")
		}
		if len(queue) > 0 && (s.Again == 0 || queue[0].at <= s.Again) {
			now = max(now, queue[0].at)
			require.NoError(t, c.Arrived(queue[0].r))
			queue = queue[1:]
		} else {
			now = s.Again
		}
	}
	require.Fail(t, "it does not end")
	return r
}

func drawOptions(t *rapid.T) Options {
	passes, layers := rapid.IntRange(1, MaxPasses).Draw(t, "passes"), rapid.IntRange(1, 5).Draw(t, "layers")
	o := Options{
		Objects:     make([]Object, rapid.IntRange(1, 6).Draw(t, "objects")),
		Losses:      make(Losses, passes),
		Deadline:    time.Duration(rapid.IntRange(0, 3000).Draw(t, "deadline")) * time.Millisecond,
		LayersFirst: rapid.Bool().Draw(t, "layers first"),
	}
	for i := range o.Objects {
		x := &o.Objects[i]
		x.Tokens = rapid.IntRange(1, 300).Draw(t, "tokens")
		for range passes {
			x.Bytes = append(x.Bytes, rapid.SliceOfN(rapid.Int64Range(0, 3000), layers, layers).Draw(t, "bytes"))
		}
	}
	for p := range o.Losses {
		o.Losses[p] = rapid.SliceOfN(rapid.Float64Range(0, 1), layers, layers).Draw(t, "losses")
	}
	if rapid.Bool().Draw(t, "monotone") {
		for l := range layers {
			column := make([]float64, passes)
			for p := range column {
				column[p] = o.Losses[p][l]
			}
			slices.Sort(column)
			for p := range column {
				o.Losses[passes-1-p][l] = column[p]
			}
		}
	}
	if rapid.Bool().Draw(t, "recompute") {
		o.Recompute = &Recompute{
			Cost: Prefill{
				Step: rapid.Float64Range(0, 0.05).Draw(t, "step"), Token: rapid.Float64Range(0, 0.01).Draw(t, "token"),
				Pair: rapid.Float64Range(0, 1e-6).Draw(t, "pair"), StepTokens: rapid.SampledFrom([]int{0, 64, 256}).Draw(t, "step tokens"),
			},
			First: rapid.IntRange(0, 1000).Draw(t, "first"), Beside: rapid.Bool().Draw(t, "beside"),
			Price: rapid.SampledFrom([]float64{0, 0.1, 1e9}).Draw(t, "price"),
		}
	}
	return o
}

func (o *Options) clone() Options {
	d := *o
	d.Objects = slices.Clone(o.Objects)
	d.Losses = slices.Clone(o.Losses)
	return d
}

// Whether something is in time at all on a link of this rate.
func (o *Options) possible(rate float64) bool {
	tokens, coarse := []int{0}, []float64{0}
	for i, x := range o.Objects {
		bytes := 0.0
		for _, n := range x.Bytes[0] {
			bytes += float64(n)
		}
		tokens, coarse = append(tokens, tokens[i]+x.Tokens), append(coarse, coarse[i]+bytes)
	}
	for k := range coarse {
		if o.Recompute == nil && k < len(o.Objects) {
			continue
		}
		end := coarse[k] / rate
		if r := o.Recompute; r != nil {
			took := r.Cost.Cost(r.First+tokens[k], r.First+tokens[len(o.Objects)]).Seconds()
			if r.Beside {
				end = max(end, took)
			} else {
				end += took
			}
		}
		if end <= o.Deadline.Seconds()-1e-6 {
			return true
		}
	}
	return false
}

func TestTheDeadlineIsMetWhereItCanBe(t *testing.T) {
	met, missed := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		o, rate := drawOptions(t), rapid.Float64Range(500, 200000).Draw(t, "rate")
		r := drive(t, o, rate, rapid.IntRange(1, 4).Draw(t, "depth"))
		if o.possible(rate) {
			// Nanoseconds are rounded.
			require.LessOrEqual(t, r.end, o.Deadline+time.Microsecond)
			met++
		} else {
			missed++
		}
	})
	require.Positive(t, met)
	require.Positive(t, missed)
}

// Whatever is believed of the link, the order holds and it ends.
func TestOrderHoldsForAnyEstimate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, rate := drawOptions(t), rapid.Float64Range(500, 50000).Draw(t, "rate")
		g := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		driveBy(t, o, rate, rapid.IntRange(1, 4).Draw(t, "depth"), func() Estimate {
			return Estimate{rate * g.ExpFloat64(), rate * g.ExpFloat64() * float64(g.IntN(3))}
		})
	})
}

func TestMoreTimeGivesMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, rate := drawOptions(t), rapid.Float64Range(500, 50000).Draw(t, "rate")
		o.Recompute = nil
		shorter := drive(t, o, rate, 1)
		longer := o.clone()
		longer.Deadline += time.Duration(rapid.IntRange(0, 3000).Draw(t, "more")) * time.Millisecond
		r := drive(t, longer, rate, 1)
		require.GreaterOrEqual(t, len(r.ranges), len(shorter.ranges))
		for i, x := range shorter.ranges {
			require.Equal(t, x, r.ranges[i])
		}
	})
}

func TestDecisionsDependOnArgumentsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, rate := drawOptions(t), rapid.Float64Range(500, 50000).Draw(t, "rate")
		depth := rapid.IntRange(1, 4).Draw(t, "depth")
		require.Equal(t, drive(t, o, rate, depth), drive(t, o.clone(), rate, depth))
	})
}

// Of what is fetched, no refinement that came was worse for each byte than one
// that did not come, unless that one waits for another.
func TestRefinementsComeByGain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawOptions(t)
		o.Recompute = nil
		order := refinements(&o)
		for i := 1; i < len(order); i++ {
			require.GreaterOrEqual(t, order[i-1].density, order[i].density)
		}
		r := drive(t, o, rapid.Float64Range(500, 50000).Draw(t, "rate"), 1)
		at := 0
		for _, x := range r.ranges {
			if x.Pass == 0 {
				continue
			}
			require.Equal(t, Range{int(order[at].object), int(order[at].layer), int(order[at].pass), x.Bytes}, x)
			at++
		}
	})
}
