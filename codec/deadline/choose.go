package deadline

import "time"

// candidates is how many prefixes are looked at in one choice.
const candidates = 64

// curve is what choosing needs, all prefix sums over objects: entry k is for the
// first k of them.
type curve struct {
	classes []class
	sizes   [][]float64 // of the classes
	coarse  []float64   // loss of the coarse level, nats
	tokens  []int
	total   float64 // tokens of all
}

func newCurve(o *Options) curve {
	c := curve{classes: classes(o), coarse: make([]float64, len(o.Objects)+1), tokens: make([]int, len(o.Objects)+1)}
	for i := range o.Objects {
		c.tokens[i+1] = c.tokens[i] + o.Objects[i].Tokens
	}
	c.total = float64(c.tokens[len(o.Objects)])
	all := 0.0
	for _, v := range o.Losses[0] {
		all += v
	}
	for k, n := range c.tokens {
		c.coarse[k] = all * float64(n) / c.total
	}
	c.sizes = make([][]float64, len(c.classes))
	for j, cl := range c.classes {
		c.sizes[j] = make([]float64, len(o.Objects)+1)
		for i := range o.Objects {
			c.sizes[j][i+1] = c.sizes[j][i] + float64(o.Objects[i].Bytes[cl.pass][cl.layer])
		}
	}
	return c
}

// loss is what the first k objects lose if so many bytes of refinements come.
func (c *curve) loss(k int, bytes float64) float64 {
	loss, share := c.coarse[k], float64(c.tokens[k])/c.total
	for j, cl := range c.classes {
		size := c.sizes[j][k]
		if bytes < size {
			return loss - cl.gain*share*bytes/size
		}
		bytes -= size
		loss -= cl.gain * share
	}
	return loss
}

// compute is what is left of computing the objects from k on.
func (c *Controller) compute(now time.Duration, k int) time.Duration {
	r := c.o.Recompute
	if r == nil || k == len(c.o.Objects) {
		return 0
	}
	took := r.Cost.Cost(r.First+c.curve.tokens[k], r.First+c.curve.tokens[len(c.o.Objects)])
	if c.computing && k == c.keep {
		took -= now - c.began
	}
	return max(0, took)
}

// until is when fetching has to end so that the objects from k on are computed in
// time. Where that goes on beside fetching it may be in time or not.
func (c *Controller) until(now time.Duration, k int) (time.Duration, bool) {
	took := c.compute(now, k)
	if r := c.o.Recompute; r != nil && r.Beside {
		return c.o.Deadline, now+took <= c.o.Deadline
	}
	return c.o.Deadline - took, now+took <= c.o.Deadline
}

// needed is how many bytes have still to come until the first k objects have
// their coarse level, with what is on its way before them.
func (c *Controller) needed(k int) float64 {
	if c.have >= k {
		return 0
	}
	return float64(c.flying + c.unasked[k])
}

// choose returns how many objects to fetch: of those that meet the deadline the
// number with the least loss, computing at its price. What may be counted on
// decides what that is; if nothing meets it, what comes on average. Of equals, the
// larger.
//
// If nothing does then, what is done first is taken, but until the deadline only of
// what goes on fetching and computes nothing in vain: a link may recover, and computing, which is late for sure,
// ends at most so much later as it takes. To give up at once lost many deadlines:
// early samples say little, and have latency in them.
func (c *Controller) choose(now time.Duration, e Estimate) int {
	best := c.best(now, e.Lower, e.Mean, 0)
	if !best.inTime {
		best = c.best(now, e.Mean, e.Mean, 0)
	}
	if !best.inTime && now < c.o.Deadline {
		best = c.best(now, e.Mean, e.Mean, c.have+1)
	}
	return best.keep
}

// best is the best choice of least objects or more, if coarse levels come at a
// rate of rate, refinements at mean.
func (c *Controller) best(now time.Duration, rate, mean float64, least int) weighed {
	most := len(c.o.Objects)
	if c.computing || c.refining {
		most = c.keep
	}
	best := c.weigh(now, rate, mean, most)
	stride := (most + candidates - 1) / candidates
	for k := most - stride; k > least; k -= stride {
		best = best.or(c.weigh(now, rate, mean, k))
	}
	for _, k := range [...]int{c.have, least} {
		if k >= least && k < most {
			best = best.or(c.weigh(now, rate, mean, k))
		}
	}
	return best
}

// weighed is what is expected of fetching so many objects.
type weighed struct {
	keep       int
	computable bool    // what is computed would be in time
	inTime     bool    // everything would be
	loss       float64 // if in time
	end        float64 // seconds from now
}

// or is the better of two, w if they are equal.
func (w weighed) or(other weighed) weighed {
	better := other.end < w.end
	switch {
	case w.inTime != other.inTime:
		better = other.inTime
	case w.inTime:
		better = other.loss < w.loss
	case w.computable != other.computable:
		better = other.computable
	}
	if better {
		return other
	}
	return w
}

func (c *Controller) weigh(now time.Duration, rate, mean float64, k int) weighed {
	fetch := 0.0
	if needed := c.needed(k); needed > 0 {
		fetch = needed / rate // of 0: endless
	}
	took := c.compute(now, k).Seconds()
	until, feasible := c.until(now, k)
	left := (until - now).Seconds() - fetch
	w := weighed{keep: k, computable: feasible && now < c.o.Deadline, inTime: feasible && left >= 0, end: fetch + took}
	if c.o.Recompute.Beside {
		w.end = max(fetch, took)
	}
	if w.inTime {
		w.loss = c.curve.loss(k, left*mean) + c.o.Recompute.Price*took
	}
	return w
}
