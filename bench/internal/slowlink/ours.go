package slowlink

import (
	"fmt"
	"time"

	"github.com/larderkv/larder/codec/deadline"
)

// Ours is how codec/deadline is used.
type Ours struct {
	Rate  deadline.RateOptions
	Price float64
	// Beside: computing goes on beside fetching.
	Beside      bool
	LayersFirst bool
	// Depth is how many ranges are on their way at most.
	Depth int
}

type inFlight struct {
	r  deadline.Range
	at time.Duration
}

// run is one request by the controller. The link is a pipe: ranges come one after
// the other, each not before its latency has passed.
func (o Ours) run(r *Request, t *Trace, start time.Duration) (Outcome, error) {
	rate, err := deadline.NewRate(o.Rate)
	if err != nil {
		return Outcome{}, err
	}
	options := deadline.Options{Objects: r.Objects, Losses: r.Loss, Deadline: start + r.Deadline, LayersFirst: o.LayersFirst}
	if r.Prefill != nil {
		options.Recompute = &deadline.Recompute{Cost: *r.Prefill, Beside: o.Beside, Price: o.Price}
	}
	c, err := deadline.New(options)
	if err != nil {
		return Outcome{}, err
	}
	var out Outcome
	var queue []inFlight
	now, free, told := start, start, start
	n := len(r.Objects)
	keep, computed := n, start
	for now < start+endless {
		s := c.Next(now, rate.Estimate())
		if o.Beside && r.Prefill != nil && s.Keep < n && s.Keep != keep {
			computed = now + r.cost(s.Keep, n)
		}
		keep = s.Keep
		switch s.Action {
		case deadline.Stop:
			out.Took = now - start
			if keep < n {
				if o.Beside {
					out.Took = max(now, computed) - start
				} else {
					out.Took += r.cost(keep, n)
				}
			}
			out.Computed = r.tokens(n) - r.tokens(keep)
			out.Loss = judge(c, r, keep)
			return out, nil
		case deadline.Fetch:
			if len(queue) == 0 {
				told = now // the link was idle
			}
			free = t.arrival(max(free, now+t.Latency), s.Range.Bytes)
			queue = append(queue, inFlight{s.Range, free})
			out.Bytes += s.Range.Bytes
			if len(queue) < o.Depth {
				continue
			}
		case deadline.Wait:
			if len(queue) == 0 && s.Again == 0 {
				return Outcome{}, fmt.Errorf("%s: it waits for nothing", t.Name)
			}
		}
		if len(queue) > 0 && (s.Again == 0 || queue[0].at <= s.Again) {
			now = max(now, queue[0].at)
			rate.Observe(queue[0].r.Bytes, now-told)
			if err := c.Arrived(queue[0].r); err != nil {
				return Outcome{}, err
			}
			queue = queue[1:]
		} else {
			now = s.Again
			if len(queue) > 0 {
				rate.Observe(0, now-told)
			}
		}
		told = now
	}
	out.Took, out.Loss = endless, at(r.Judge, 0, 1)
	return out, nil
}

// judge is the loss of what is there.
func judge(c *deadline.Controller, r *Request, keep int) float64 {
	loss, all := 0.0, float64(r.tokens(len(r.Objects)))
	for i := range keep {
		share := float64(r.Objects[i].Tokens) / all
		for l := range r.Judge[0] {
			loss += r.Judge[max(1, c.Passes(i, l))-1][l] * share
		}
	}
	return loss
}
