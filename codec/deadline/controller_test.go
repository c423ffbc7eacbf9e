package deadline

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// even is a request for objects of 256 tokens, two layers, 1000 bytes for each
// range, three passes.
func even(objects int, deadline time.Duration) Options {
	o := Options{Losses: Losses{{0.2, 0.1}, {0.02, 0.05}, {0.01, 0}}, Deadline: deadline}
	for range objects {
		o.Objects = append(o.Objects, Object{Tokens: 256, Bytes: [][]int64{{1000, 1000}, {1000, 1000}, {1000, 1000}}})
	}
	return o
}

func newController(t *testing.T, o Options) *Controller {
	t.Helper()
	c, err := New(o)
	require.NoError(t, err)
	return c
}

var (
	unknown = Estimate{}
	perMs   = Estimate{1e6, 1e6} // a range takes a millisecond
)

// take has what Next asks for arrive at once, n times, and returns it.
func take(t *testing.T, c *Controller, now time.Duration, e Estimate, n int) []Range {
	t.Helper()
	var out []Range
	for range n {
		s := c.Next(now, e)
		require.Equal(t, Fetch, s.Action)
		require.NoError(t, c.Arrived(s.Range))
		out = append(out, s.Range)
	}
	return out
}

func TestOrderOfAnObject(t *testing.T) {
	got := take(t, newController(t, even(1, time.Second)), 0, perMs, 6)
	// Gains: layer 0 0.18 and 0.01, layer 1 0.05 twice.
	want := []Range{{0, 0, 0, 1000}, {0, 1, 0, 1000}, {0, 0, 1, 1000}, {0, 1, 1, 1000}, {0, 1, 2, 1000}, {0, 0, 2, 1000}}
	require.Equal(t, want, got)
}

func TestOrderOfTheCoarseLevel(t *testing.T) {
	o := even(2, time.Second)
	require.Equal(t, []Range{{0, 0, 0, 1000}, {0, 1, 0, 1000}, {1, 0, 0, 1000}, {1, 1, 0, 1000}}, take(t, newController(t, o), 0, perMs, 4))
	o.LayersFirst = true
	require.Equal(t, []Range{{0, 0, 0, 1000}, {1, 0, 0, 1000}, {0, 1, 0, 1000}, {1, 1, 0, 1000}}, take(t, newController(t, o), 0, perMs, 4))
}

func TestAPassThatOpensTheWayCountsWithTheNext(t *testing.T) {
	require.Equal(t, []float64{3, 3, 1}, density(nil, []float64{1, 5, 1}, []float64{1, 1, 1}))
	require.Equal(t, []float64{5, 1, 0}, density(nil, []float64{5, 1, 0}, []float64{1, 1, 1}))
	require.Equal(t, []float64{2, 2, 2}, density(nil, []float64{0, 0, 6}, []float64{1, 1, 1}))
	require.Equal(t, []float64{math.Inf(1), 1}, density(nil, []float64{0, 1}, []float64{0, 1}))
}

func TestEmptyRangesAreThere(t *testing.T) {
	o := even(1, time.Second)
	o.Objects[0].Bytes = [][]int64{{0, 1000}, {0, 0}, {1000, 1000}}
	c := newController(t, o)
	require.Equal(t, 2, c.Passes(0, 0))
	// The second range of layer 1 has no bytes between the first and the third.
	require.Equal(t, []Range{{0, 1, 0, 1000}, {0, 1, 2, 1000}, {0, 0, 2, 1000}}, take(t, c, 0, perMs, 3))
	require.Equal(t, Stop, c.Next(0, perMs).Action)
	require.InDelta(t, 0.01, c.Loss(1), 1e-12)
}

func TestRangesOfOneLayerOnTheirWayTogether(t *testing.T) {
	o := even(1, time.Second)
	o.Objects[0].Bytes[1] = []int64{0, 0}
	c := newController(t, o)
	var ranges []Range
	for range 4 {
		ranges = append(ranges, c.Next(0, perMs).Range)
	}
	require.ErrorIs(t, c.Arrived(ranges[2]), fault.Invalid, "before the coarse one")
	for _, r := range ranges {
		require.NoError(t, c.Arrived(r))
	}
	require.Equal(t, 3, c.Passes(0, 0))
}

// A link that is fast for the first object leaves time for all.
func TestSlackIsCarriedOver(t *testing.T) {
	slow, fast := newController(t, even(4, 16*time.Millisecond)), newController(t, even(4, 16*time.Millisecond))
	run := func(c *Controller, first time.Duration) int {
		now, n := time.Duration(0), 0
		for {
			s := c.Next(now, perMs)
			if s.Action == Stop {
				return n
			}
			require.Equal(t, Fetch, s.Action)
			if n++; s.Range.Object == 0 && s.Range.Pass == 0 {
				now += first
			} else {
				now += time.Millisecond
			}
			require.NoError(t, c.Arrived(s.Range))
		}
	}
	require.Equal(t, 16, run(slow, time.Millisecond))
	require.Equal(t, 18, run(fast, 0))
}

func TestRefinementsOnTheirWayAreGivenUp(t *testing.T) {
	c := newController(t, even(1, 10*time.Millisecond))
	take(t, c, 0, perMs, 2)
	require.Equal(t, Fetch, c.Next(9*time.Millisecond, perMs).Action)
	s := c.Next(9*time.Millisecond, perMs)
	require.Equal(t, Step{Action: Wait, Keep: 1, Again: 10 * time.Millisecond}, s)
	require.Equal(t, Stop, c.Next(10*time.Millisecond, perMs).Action)
	require.InDelta(t, 0.3, c.Loss(1), 1e-12)
}

func TestWithoutComputingTheCoarseLevelComesLate(t *testing.T) {
	c := newController(t, even(2, time.Millisecond))
	take(t, c, 5*time.Millisecond, unknown, 4)
	require.Equal(t, Stop, c.Next(6*time.Millisecond, unknown).Action)
}

// 256 tokens take 100 ms, an object's coarse level 2 ms.
func withComputing(objects int, deadline time.Duration) Options {
	o := even(objects, deadline)
	o.Recompute = &Recompute{Cost: Prefill{Token: 0.1 / 256}}
	return o
}

func TestComputingIsFreeOrHasAPrice(t *testing.T) {
	o := withComputing(4, 350*time.Millisecond)
	require.Equal(t, 1, newController(t, o).Next(0, perMs).Keep, "all but one can be computed")
	o.Deadline = 400 * time.Millisecond
	require.Equal(t, Step{Action: Stop}, newController(t, o).Next(0, perMs), "all can be")
	o.Recompute.Price = 1000
	require.Equal(t, 4, newController(t, o).Next(0, perMs).Keep, "fetching is in time")
	slow := Estimate{10000, 10000} // an object takes 200 ms
	o.Deadline = 500 * time.Millisecond
	require.Equal(t, 1, newController(t, o).Next(0, slow).Keep, "only what would be late is computed")
	o.Deadline = 50 * time.Millisecond
	require.Equal(t, 4, newController(t, o).Next(0, slow).Keep, "all are late: the link may recover, the processor will not")
	require.Equal(t, 0, newController(t, o).Next(o.Deadline, slow).Keep, "the earliest end")
}

func TestAPriceBetween(t *testing.T) {
	// An object's coarse and two passes take 6 ms; 0.3 is lost with coarse alone.
	o := withComputing(4, 215*time.Millisecond)
	o.Recompute.Price = 0.01 // 0.001 for each object, which is 0.0025 at its best
	require.Equal(t, 2, newController(t, o).Next(0, perMs).Keep)
	o.Recompute.Price = 0.1
	require.Equal(t, 4, newController(t, o).Next(0, perMs).Keep)
}

func TestNothingIsKnownAtFirst(t *testing.T) {
	c := newController(t, withComputing(4, 350*time.Millisecond))
	s := c.Next(0, unknown)
	require.Equal(t, Fetch, s.Action)
	require.Equal(t, 4, s.Keep)
	// Computing all four would be late already: there is no last call to come.
	require.Equal(t, 350*time.Millisecond, s.Again)
	require.Equal(t, Fetch, c.Next(349*time.Millisecond, unknown).Action)
	require.Equal(t, Step{Action: Stop}, c.Next(s.Again, unknown))
	// Where all can be computed, there is one, and a timer may be late for it.
	c = newController(t, withComputing(4, 500*time.Millisecond))
	s = c.Next(0, unknown)
	require.Equal(t, 90*time.Millisecond, s.Again)
	require.Equal(t, Fetch, c.Next(s.Again-1, unknown).Action)
	require.Equal(t, Step{Action: Stop}, c.Next(s.Again+lateTimer, unknown))
}

// The link dies when an object is there. At the last call for computing the
// other three the controller takes to that.
func TestSilence(t *testing.T) {
	o := withComputing(4, 450*time.Millisecond)
	o.Recompute.Price = 1000
	c := newController(t, o)
	require.Equal(t, Fetch, c.Next(0, unknown).Action)
	take1 := c.Next(0, unknown).Range
	require.NoError(t, c.Arrived(Range{0, 0, 0, 1000}))
	require.NoError(t, c.Arrived(take1))
	s := c.Next(10*time.Millisecond, Estimate{1e5, 1e5})
	require.Equal(t, Fetch, s.Action)
	require.Equal(t, 4, s.Keep)
	require.Equal(t, 140*time.Millisecond, s.Again)
	s = c.Next(s.Again, unknown)
	require.Equal(t, Step{Action: Stop, Keep: 1}, s)
}

func TestWhatIsLateIsLookedAtAgain(t *testing.T) {
	c := newController(t, withComputing(1, 10*time.Millisecond))
	s := c.Next(20*time.Millisecond, Estimate{1e5, 1e5})
	require.Equal(t, Fetch, s.Action, "20 ms are less than 100")
	require.Equal(t, 20*time.Millisecond+recheck, s.Again)
	require.Equal(t, Step{Action: Stop}, c.Next(s.Again, unknown), "0 bytes a second are more")
}

func TestComputingBeside(t *testing.T) {
	o := withComputing(4, 210*time.Millisecond)
	o.Recompute.Beside = true
	c := newController(t, o)
	require.Equal(t, 2, c.Next(0, perMs).Keep)
	// From then on it only falls; what was begun is nearly done.
	require.Equal(t, 2, c.Next(150*time.Millisecond, Estimate{1e5, 1e5}).Keep)
	require.Equal(t, 50*time.Millisecond, c.compute(150*time.Millisecond, 2))
	// It is late. To begin anew takes longer than what is left to fetch.
	require.Equal(t, 2, c.Next(400*time.Millisecond, Estimate{2e4, 2e4}).Keep)
	require.Equal(t, 0, c.Next(400*time.Millisecond, Estimate{1, 1}).Keep)
}

// Of many objects 64 numbers or so are looked at, each 16th of 1000.
func TestManyObjects(t *testing.T) {
	o := withComputing(1000, 51*time.Second)
	o.Recompute.Beside = true
	o.Recompute.Price = 1000
	slow := Estimate{20e3, 20e3} // 0.1 s for an object, as computing takes
	require.Equal(t, 504, newController(t, o).Next(0, slow).Keep)
	require.Equal(t, 1000, newController(t, o).Next(0, Estimate{256e3, 256e3}).Keep)
}

func TestPrefillCost(t *testing.T) {
	p := Prefill{Step: 0.01, Token: 0.001, Pair: 1e-6, StepTokens: 100}
	require.Zero(t, p.Cost(5, 5))
	// 250 tokens are three steps; pairs are (350^2 - 100^2) / 2.
	require.InDelta(t, 0.03+0.25+0.05625, p.Cost(100, 350).Seconds(), 1e-9)
	p.StepTokens = 0
	require.InDelta(t, 0.01+0.25+0.05625, p.Cost(100, 350).Seconds(), 1e-9)
	require.InDelta(t, p.Cost(0, 900).Seconds(), p.Cost(0, 300).Seconds()+p.Cost(300, 900).Seconds()-0.01, 1e-6)
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no objects":       func(o *Options) { o.Objects = nil },
		"no losses":        func(o *Options) { o.Losses = nil },
		"too many passes":  func(o *Options) { o.Losses = make(Losses, MaxPasses+1) },
		"no layers":        func(o *Options) { o.Losses[0] = nil },
		"ragged losses":    func(o *Options) { o.Losses[1] = o.Losses[1][:1] },
		"negative loss":    func(o *Options) { o.Losses[1] = []float64{-1, 0} },
		"no number":        func(o *Options) { o.Losses[1] = []float64{math.NaN(), 0} },
		"endless loss":     func(o *Options) { o.Losses[1] = []float64{math.Inf(1), 0} },
		"no tokens":        func(o *Options) { o.Objects[1].Tokens = 0 },
		"other passes":     func(o *Options) { o.Objects[1].Bytes = o.Objects[1].Bytes[:2] },
		"other layers":     func(o *Options) { o.Objects[1].Bytes[2] = []int64{1} },
		"negative bytes":   func(o *Options) { o.Objects[1].Bytes[2] = []int64{1, -1} },
		"too many bytes":   func(o *Options) { o.Objects[1].Bytes[2] = []int64{1, 1<<40 + 1} },
		"negative start":   func(o *Options) { o.Recompute = &Recompute{First: -1} },
		"negative price":   func(o *Options) { o.Recompute = &Recompute{Price: -1} },
		"negative cost":    func(o *Options) { o.Recompute = &Recompute{Cost: Prefill{Token: -1}} },
		"no cost":          func(o *Options) { o.Recompute = &Recompute{Cost: Prefill{Pair: math.NaN()}} },
		"negative step":    func(o *Options) { o.Recompute = &Recompute{Cost: Prefill{StepTokens: -1}} },
		"too many ranges":  func(o *Options) { o.Objects = make([]Object, MaxRanges/6+1) },
		"too many tokens":  func(o *Options) { o.Objects[0].Tokens = 1<<24 + 1 },
		"an endless price": func(o *Options) { o.Recompute = &Recompute{Price: math.NaN()} },
	} {
		o := even(2, time.Second)
		change(&o)
		_, err := New(o)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
}

func TestOnlyWhatWasAskedForArrives(t *testing.T) {
	c := newController(t, even(1, time.Second))
	r := c.Next(0, perMs).Range
	for _, other := range []Range{{-1, 0, 0, 1000}, {1, 0, 0, 1000}, {0, 2, 0, 1000}, {0, -1, 0, 1000}, {0, 1, 0, 1000}, {0, 0, 1, 1000}, {0, 0, 0, 999}} {
		require.ErrorIs(t, c.Arrived(other), fault.Invalid, "%+v", other)
	}
	require.NoError(t, c.Arrived(r))
	require.ErrorIs(t, c.Arrived(r), fault.Invalid)
}

// What a directory says is where the object's layers lie: an object put together
// from the ranges decodes.
func TestDirectoryOfAnObject(t *testing.T) {
	coder, err := rans.New(rans.Options{})
	require.NoError(t, err)
	shape := codec.Shape{Layers: 3, Heads: 2, Tokens: 64, Fields: []codec.Field{{Kind: codec.K, DType: codec.BF16, Dims: 32}}}
	raw := make([]byte, shape.RawSize())
	g := rand.New(rand.NewPCG(1, 1))
	for i := 0; i < len(raw); i += 2 {
		binary.LittleEndian.PutUint16(raw[i:], uint16(math.Float32bits(float32(g.NormFloat64()))>>16))
	}
	object, err := codec.NewEncoder(coder).Encode(nil, raw, &shape, &codec.Params{
		Coarsest: codec.L3, Fields: []codec.FieldParams{{Mode: codec.Plain, Steps: []float32{0.05}}},
	})
	require.NoError(t, err)
	h, err := codec.Parse(object)
	require.NoError(t, err)
	o := Options{Objects: []Object{Of(h)}, Losses: Losses{{3, 3, 3}, {2, 2, 2}, {1, 1, 1}, {0, 0, 0}}, Deadline: time.Hour}
	c := newController(t, o)
	got := append([]byte(nil), object[:h.Size]...)
	got = append(got, make([]byte, h.ObjectSize-h.Size)...)
	for s := c.Next(0, perMs); s.Action != Stop; s = c.Next(0, perMs) {
		require.Equal(t, Fetch, s.Action)
		at, n := h.Range(s.Range.Pass, s.Range.Layer, s.Range.Layer+1)
		require.Equal(t, n, s.Range.Bytes)
		copy(got[at:at+n], object[at:at+n])
		require.NoError(t, c.Arrived(s.Range))
	}
	require.Equal(t, object, got)
	require.Zero(t, c.Loss(1))
}

func TestKeepAndRefinements(t *testing.T) {
	o := withComputing(4, 500*time.Millisecond)
	o.Recompute.Price = 1000
	o.Objects[3].Bytes = [][]int64{{1000, 1000}, {500, 500}, {1000, 1000}} // the best refinements of all
	c := newController(t, o)
	first, second := c.Next(0, perMs).Range, c.Next(0, perMs).Range
	require.NoError(t, c.Arrived(first))
	s := c.Next(0, Estimate{8e3, 8e3})
	require.Equal(t, Wait, s.Action)
	require.Equal(t, 1, s.Keep, "the others would be late")
	require.NoError(t, c.Arrived(second))
	// No refinement is asked for yet: the number may rise, and nothing is passed over.
	take(t, c, 0, perMs, 22)
	require.Equal(t, 3, c.Passes(3, 0))

	c = newController(t, o)
	take(t, c, 0, perMs, 2)
	s = c.Next(0, Estimate{1e3, 1e6})
	require.Equal(t, 1, s.Range.Pass)
	require.Equal(t, 1, s.Keep)
	require.Equal(t, 1, c.Next(0, perMs).Keep, "refinements have begun")
}
