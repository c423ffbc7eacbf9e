package slowlink

import (
	"math"
	"testing"
	"time"

	"github.com/larderkv/larder/codec/deadline"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// flat is a link of constant rate.
func flat(rate float64) *Trace {
	return newTrace("flat", 0, []span{{time.Second, rate}})
}

// small is four chunks of 100 tokens, two layers, four passes of 1000 bytes for
// each layer.
func small(d time.Duration) *Request {
	r := &Request{Deadline: d, Loss: deadline.Losses{{0.02, 0.02}, {0.002, 0.002}, {0.0002, 0.0002}, {0, 0}}}
	r.Judge = r.Loss
	for range 4 {
		o := deadline.Object{Tokens: 100}
		for range 4 {
			o.Bytes = append(o.Bytes, []int64{1000, 1000})
		}
		r.Objects = append(r.Objects, o)
	}
	return r
}

func TestArrival(t *testing.T) {
	l := newTrace("steps", 0, []span{{time.Second, 100}, {2 * time.Second, 0}, {time.Second, 50}})
	require.Equal(t, 500*time.Millisecond, l.arrival(0, 50))
	require.Equal(t, 3400*time.Millisecond, l.arrival(500*time.Millisecond, 70))
	require.Equal(t, 3400*time.Millisecond, l.arrival(2*time.Second, 20))
	require.Equal(t, 4500*time.Millisecond, l.arrival(0, 200), "it begins again")
	require.Equal(t, 8500*time.Millisecond, l.arrival(4*time.Second, 200))
	require.Equal(t, endless, newTrace("dead", 0, []span{{time.Hour, 0}}).arrival(0, 1))
}

func TestArrivalAddsUp(t *testing.T) {
	l := Markov(7, 50)
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Duration(rapid.Int64Range(0, int64(200*time.Second)).Draw(t, "begin"))
		a, b := rapid.Int64Range(0, 1e7).Draw(t, "a"), rapid.Int64Range(0, 1e7).Draw(t, "b")
		require.InDelta(t, l.arrival(begin, a+b).Seconds(), l.arrival(l.arrival(begin, a), b).Seconds(), 1e-5)
	})
}

func TestTraces(t *testing.T) {
	for kind, low := range map[string]float64{"hsdpa": 10e3, "lte": 1e6} {
		list, err := Recorded(kind)
		require.NoError(t, err)
		require.Len(t, list, traces)
		for _, l := range list {
			bytes := 0.0
			for _, s := range l.spans {
				bytes += s.rate * s.took.Seconds()
			}
			require.Greater(t, bytes/l.whole().Seconds(), low, l.Name)
		}
	}
	require.Equal(t, Markov(3, 100), Markov(3, 100))
	require.NotEqual(t, Markov(3, 100).spans, Markov(4, 100).spans)
	for _, s := range Uniform(5, time.Second).spans {
		require.True(t, s.rate >= 0.1*125e6 && s.rate <= 10*125e6 && s.took == 100*time.Millisecond)
	}
}

// At 1 byte a microsecond and 32 ms there is time for everything; at less the
// paper's rule takes the level that fits for all that is left.
func TestCacheGenAsInThePaper(t *testing.T) {
	run := func(d time.Duration, rate float64, p *deadline.Prefill) Outcome {
		r := small(d)
		r.Prefill = p
		o, err := cacheGenPaper(r, flat(rate), 0)
		require.NoError(t, err)
		return o
	}
	o := run(28*time.Millisecond, 1e6, nil)
	require.Equal(t, 28*time.Millisecond, o.Took, "4000 bytes of the first chunk, 8000 of the others")
	require.InDelta(t, 0.001, o.Loss, 1e-9)
	o = run(20*time.Millisecond, 1e6, nil)
	// 16 ms are left after the first chunk: 5.3 ms for each.
	require.Equal(t, int64(4000+4000+6000+6000), o.Bytes)
	require.Equal(t, 20*time.Millisecond, o.Took)
	o = run(5*time.Millisecond, 1e6, nil)
	require.Equal(t, 10*time.Millisecond, o.Took, "late at the coarsest level")
	// Everything can be computed.
	o = run(40*time.Millisecond, 1e6, &deadline.Prefill{Token: 1e-4})
	require.Equal(t, Outcome{Took: 40 * time.Millisecond, Computed: 400}, o)
	// What the first chunk leaves can be: 30 ms for three.
	o = run(34*time.Millisecond, 1e6, &deadline.Prefill{Token: 1e-4})
	require.Equal(t, 300, o.Computed)
	require.Equal(t, 34*time.Millisecond, o.Took)
}

func TestCacheGenAsPublished(t *testing.T) {
	run := func(d time.Duration, p *deadline.Prefill) Outcome {
		r := small(d)
		r.Prefill = p
		o, err := cacheGenCode(r, flat(1e6), 0)
		require.NoError(t, err)
		return o
	}
	require.Equal(t, int64(4*6000), run(32*time.Millisecond, nil).Bytes, "8 ms for each chunk, which has to take less")
	require.Equal(t, int64(4*8000), run(33*time.Millisecond, nil).Bytes)
	require.Equal(t, int64(4*2000), run(4*time.Millisecond, nil).Bytes)
	o := run(4*time.Millisecond, &deadline.Prefill{Token: 1e-5})
	require.Equal(t, Outcome{Took: 4 * time.Millisecond, Computed: 400}, o)
}

func TestOursOnAConstantLink(t *testing.T) {
	r := small(20 * time.Millisecond)
	o, err := Ours{Depth: 4}.run(r, flat(1e6), 0)
	require.NoError(t, err)
	require.LessOrEqual(t, o.Took, r.Deadline)
	// Coarse and first refinement of all are 16 ranges of 1 ms.
	require.Less(t, o.Loss, 0.004)
	require.GreaterOrEqual(t, o.Bytes, int64(18000))
}

// The first quarter of a prompt comes fast, the rest slowly: what the paper's rule
// chose for the rest by that it cannot take back.
func TestALinkThatGetsSlow(t *testing.T) {
	l := newTrace("slower", 0, []span{{8 * time.Millisecond, 1e6}, {time.Second, 5e4}})
	r := small(50 * time.Millisecond)
	ours, err := Ours{Depth: 2}.run(r, l, 0)
	require.NoError(t, err)
	paper, err := cacheGenPaper(r, l, 0)
	require.NoError(t, err)
	require.LessOrEqual(t, ours.Took, r.Deadline)
	require.Greater(t, paper.Took, r.Deadline)
}

func TestMeasuredModel(t *testing.T) {
	m, err := Measured()
	require.NoError(t, err)
	require.Len(t, m.Sizes, 12)
	require.Len(t, m.Headers, 12)
	objects := m.Objects(30, 2)
	require.Equal(t, 2*m.Sizes[5][1][3], objects[17].Bytes[1][3])
	require.Equal(t, 2*(m.Sizes[5][0][0]+m.Headers[5]), objects[17].Bytes[0][0])
	for _, l := range []deadline.Losses{m.Loss, m.OtherLoss} {
		require.Greater(t, at(l, 0, 1), at(l, 1, 1))
		require.Greater(t, at(l, 1, 1), at(l, 2, 1))
		require.Greater(t, at(l, 2, 1), at(l, 3, 1))
	}
	_, err = deadline.New(deadline.Options{Objects: objects, Losses: m.Loss, Deadline: time.Second})
	require.NoError(t, err)
}

func TestSoonest(t *testing.T) {
	r := small(time.Second)
	took := func(beside bool) time.Duration {
		o, err := soonest(beside)(r, flat(1e6), 0)
		require.NoError(t, err)
		return o.Took
	}
	require.Equal(t, 8*time.Millisecond, took(false))
	r.Prefill = &deadline.Prefill{Token: 1e-5} // 1 ms for a chunk, half of what it takes to come
	require.Equal(t, 4*time.Millisecond, took(false))
	require.Equal(t, 3*time.Millisecond, took(true), "one of four comes meanwhile")
}

// Nobody is in time where nobody could be.
func TestNobodyIsSoonerThanThat(t *testing.T) {
	m, err := Measured()
	require.NoError(t, err)
	all, err := scenarios(99)
	require.NoError(t, err)
	s := &all[2]
	for _, compute := range []bool{false, true} {
		could, err := s.run(t.Context(), m, compute, soonest(false))
		require.NoError(t, err)
		ours, err := s.run(t.Context(), m, compute, Ours{Depth: 4}.run)
		require.NoError(t, err)
		for i := range ours {
			require.GreaterOrEqual(t, ours[i].Took, min(could[i].Took, s.deadline)-time.Microsecond)
		}
	}
}

// The set gives the same rows each time, and on its links more requests in time,
// and better ones, than the paper's rule where nothing is computed.
func TestRows(t *testing.T) {
	run := func(only string) map[string]float64 {
		rows, err := Run(t.Context(), Options{Seed: 1, Only: only, Resamples: 50})
		require.NoError(t, err)
		out := map[string]float64{}
		for _, r := range rows {
			require.False(t, math.IsNaN(r.Value) || math.IsInf(r.Value, 0), r.Name)
			require.LessOrEqual(t, r.Low, r.High, r.Name)
			out[r.Name] = r.Value
			if r.Baseline != nil {
				out[r.Name+" paper"] = *r.Baseline
			}
		}
		return out
	}
	a := run("deadline.markov.")
	require.Equal(t, a["deadline.markov.kl"], run("deadline.markov.kl")["deadline.markov.kl"])
	require.Greater(t, a["deadline.markov.met"], a["deadline.markov.met paper"])
	require.Less(t, a["deadline.markov.kl.both"], a["deadline.markov.kl.both paper"])
	require.Contains(t, a, "deadline.markov.compute.computed")
	require.NotContains(t, a, "deadline.markov.computed")
	require.NotContains(t, a, "deadline.lte.met")
}
