package deadline

import "time"

// recheck is how often a request that is late is decided anew while nothing comes.
const recheck = 100 * time.Millisecond

// lateTimer is how late a caller's timer may be for the last call.
const lateTimer = 10 * time.Millisecond

// Action is what to do now.
type Action uint8

// What Next says.
const (
	// Fetch: ask for the range.
	Fetch Action = iota + 1
	// Wait: nothing to ask for before something has come, or time has passed.
	Wait
	// Stop: it is over. Ranges on their way are given up.
	Stop
)

// Range is a layer of an object in one pass.
type Range struct {
	Object, Layer, Pass int
	Bytes               int64
}

// Step is a decision.
type Step struct {
	Action Action
	Range  Range // to Fetch
	// Keep is how many leading objects are fetched; those behind are computed.
	// Before Stop it may still change; with Recompute.Beside computing begins when
	// it is first less than all, and then it only falls, which begins anew.
	Keep int
	// Again is when to call Next even though nothing has come, on the caller's
	// clock, at most 10 ms later; 0: not before something comes.
	Again time.Duration
}

// Controller decides for one request.
type Controller struct {
	o      Options
	layers int
	curve  curve
	coarse []int32 // object x layers + layer, in the order in which they are fetched
	refine []piece
	// How many coarse ranges, and refinements, are behind.
	coarseAt, refineAt int

	// By object x layers + layer: passes that are there, and asked for.
	got, asked []uint8
	unasked    []int64 // bytes of coarse ranges of the first k objects not asked for
	missing    []int   // layers of an object whose coarse range is not there
	onTheWay   []int64 // bytes of an object
	flying     int64   // bytes of all
	have       int     // leading objects whose coarse level is there

	keep                         int
	refining, computing, stopped bool
	began                        time.Duration // computing, beside
}

// New returns a Controller, which keeps what o refers to. Invalid: shapes that
// do not agree, or figures out of range.
func New(o Options) (*Controller, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	n, layers := len(o.Objects), len(o.Losses[0])
	c := &Controller{
		o: o, layers: layers, curve: newCurve(&o), refine: refinements(&o), keep: n,
		coarse: make([]int32, 0, n*layers), got: make([]uint8, n*layers), asked: make([]uint8, n*layers),
		unasked: make([]int64, n+1), missing: make([]int, n), onTheWay: make([]int64, n),
	}
	outer, inner := n, layers
	if o.LayersFirst {
		outer, inner = layers, n
	}
	for a := range outer {
		for b := range inner {
			object, layer := a, b
			if o.LayersFirst {
				object, layer = b, a
			}
			cell := object*layers + layer
			if bytes := o.Objects[object].Bytes[0][layer]; bytes > 0 {
				c.coarse = append(c.coarse, int32(cell))
				c.missing[object]++
				c.unasked[object+1] += bytes
			} else {
				c.advance(cell)
			}
		}
	}
	for k := range n {
		c.unasked[k+1] += c.unasked[k]
	}
	c.count()
	return c, nil
}

// advance takes the next pass of a cell as there, and those behind it that have
// no bytes.
func (c *Controller) advance(cell int) {
	object, layer := cell/c.layers, cell%c.layers
	for {
		c.got[cell]++
		c.asked[cell] = max(c.asked[cell], c.got[cell])
		if p := int(c.got[cell]); p == len(c.o.Losses) || c.o.Objects[object].Bytes[p][layer] > 0 {
			return
		}
	}
}

func (c *Controller) count() {
	for c.have < len(c.missing) && c.missing[c.have] == 0 {
		c.have++
	}
}

// Next decides. While nothing is known of the link, coarse ranges are fetched as
// long as computing could still take their place in time, or until the deadline.
// The range of a Fetch counts as
// asked for: the caller asks for it, and may call again at once to have several on
// their way.
func (c *Controller) Next(now time.Duration, e Estimate) Step {
	if c.stopped {
		return Step{Action: Stop, Keep: c.keep}
	}
	e.Lower = max(0, e.Lower)
	e.Mean = max(e.Lower, e.Mean)
	c.decide(now, e)
	if r, ok := c.nextCoarse(); ok {
		return c.fetch(now, r)
	}
	until, _ := c.until(now, c.keep)
	if r, ok := c.nextRefinement(); ok && float64(c.flying+r.Bytes) <= (until-now).Seconds()*e.Mean {
		c.refining = true
		return c.fetch(now, r)
	}
	if c.have >= c.keep && (now >= until || !c.waiting()) {
		c.stopped = true
		return Step{Action: Stop, Keep: c.keep}
	}
	return Step{Action: Wait, Keep: c.keep, Again: c.again(now)}
}

// waiting says whether something of the objects that are kept is on its way.
func (c *Controller) waiting() bool {
	for _, n := range c.onTheWay[:c.keep] {
		if n > 0 {
			return true
		}
	}
	return false
}

// decide sets keep. Once a refinement is asked for, it only changes when the
// deadline is in danger.
func (c *Controller) decide(now time.Duration, e Estimate) {
	r := c.o.Recompute
	if r == nil {
		return
	}
	if c.refining {
		until, feasible := c.until(now, c.keep)
		if c.have >= c.keep || feasible && c.needed(c.keep) <= (until-now).Seconds()*e.Lower {
			return
		}
	}
	if e.Lower == 0 && now < c.lastCall(now) {
		return
	}
	keep := c.choose(now, e)
	if r.Beside && keep < len(c.o.Objects) && (!c.computing || keep != c.keep) {
		c.computing, c.began = true, now
	}
	if keep != c.keep && !c.refining {
		c.refineAt = 0 // what was passed over may be kept now
	}
	c.keep = keep
}

// lastCall is when computing all that is not there yet has to begin, with time for
// a timer that is late.
func (c *Controller) lastCall(now time.Duration) time.Duration {
	return c.o.Deadline - c.compute(now, min(c.have, c.keep)) - lateTimer
}

func (c *Controller) again(now time.Duration) time.Duration {
	until, _ := c.until(now, c.keep)
	at := time.Duration(0)
	for _, t := range [...]time.Duration{c.o.Deadline, until, c.lastCall(now)} {
		if t > now && (at == 0 || t < at) {
			at = t
		}
	}
	if at == 0 && c.o.Recompute != nil {
		return now + recheck
	}
	return at
}

func (c *Controller) fetch(now time.Duration, r Range) Step {
	c.asked[r.Object*c.layers+r.Layer] = uint8(r.Pass) + 1
	c.onTheWay[r.Object] += r.Bytes
	c.flying += r.Bytes
	if r.Pass == 0 {
		for k := r.Object + 1; k < len(c.unasked); k++ {
			c.unasked[k] -= r.Bytes
		}
	}
	return Step{Action: Fetch, Range: r, Keep: c.keep, Again: c.again(now)}
}

func (c *Controller) at(cell, pass int) Range {
	object, layer := cell/c.layers, cell%c.layers
	return Range{Object: object, Layer: layer, Pass: pass, Bytes: c.o.Objects[object].Bytes[pass][layer]}
}

// nextCoarse is the next coarse range of the objects that are kept.
func (c *Controller) nextCoarse() (Range, bool) {
	for c.coarseAt < len(c.coarse) && c.asked[c.coarse[c.coarseAt]] > 0 {
		c.coarseAt++
	}
	if c.unasked[c.keep] == 0 {
		return Range{}, false
	}
	for _, cell := range c.coarse[c.coarseAt:] {
		if int(cell)/c.layers < c.keep && c.asked[cell] == 0 {
			return c.at(int(cell), 0), true
		}
	}
	return Range{}, false
}

// nextRefinement is the best refinement of the objects that are kept. Objects
// that are not are never looked at again, since keep does not rise from then on.
func (c *Controller) nextRefinement() (Range, bool) {
	for c.refineAt < len(c.refine) {
		r := &c.refine[c.refineAt]
		cell := int(r.object)*c.layers + int(r.layer)
		if int(r.object) < c.keep && int(c.asked[cell]) <= int(r.pass) {
			return c.at(cell, int(r.pass)), true
		}
		c.refineAt++
	}
	return Range{}, false
}

// Arrived takes that a range that was asked for is there. Invalid: it was not
// asked for, or is there already.
func (c *Controller) Arrived(r Range) error {
	if r.Object < 0 || r.Object >= len(c.o.Objects) || r.Layer < 0 || r.Layer >= c.layers {
		return invalid("range", "not of this request").With(r, nil)
	}
	cell := r.Object*c.layers + r.Layer
	if p := int(c.got[cell]); r.Pass != p || p >= int(c.asked[cell]) || r != c.at(cell, p) {
		return invalid("range", "it is not the next one on its way in its layer").With(r, p)
	}
	c.onTheWay[r.Object] -= r.Bytes
	c.flying -= r.Bytes
	c.advance(cell)
	if r.Pass == 0 {
		c.missing[r.Object]--
		c.count()
	}
	return nil
}

// Passes is how many passes of a layer are there; 0: not even the coarse one.
func (c *Controller) Passes(object, layer int) int { return int(c.got[object*c.layers+layer]) }

// Loss is what the first keep objects lose as they are, in the unit of Losses;
// what is missing counts as coarse.
func (c *Controller) Loss(keep int) float64 {
	loss := 0.0
	for object := range keep {
		for layer := range c.layers {
			p := max(0, c.Passes(object, layer)-1)
			loss += c.o.Losses[p][layer] * float64(c.o.Objects[object].Tokens) / c.curve.total
		}
	}
	return loss
}
