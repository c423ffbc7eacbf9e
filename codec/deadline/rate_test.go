package deadline

import (
	"math"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func newRate(t tester, o RateOptions) *Rate {
	t.Helper()
	r, err := NewRate(o)
	require.NoError(t, err)
	return r
}

func TestRateOfFewSamples(t *testing.T) {
	r := newRate(t, RateOptions{})
	require.Zero(t, r.Estimate())
	r.Observe(100, 50*time.Millisecond)
	require.Equal(t, Estimate{Lower: 1000, Mean: 2000}, r.Estimate(), "less than a sample: half")
	r.Observe(100, 50*time.Millisecond)
	require.Equal(t, Estimate{Lower: 1000, Mean: 2000}, r.Estimate(), "one sample: half")
	r.Observe(300, 100*time.Millisecond)
	require.InDelta(t, 2000*2.0/3, r.Estimate().Lower, 1e-6)
	r.Observe(300, 100*time.Millisecond)
	require.InDelta(t, 2000*3.0/4, r.Estimate().Lower, 1e-6)
	r.Observe(300, 100*time.Millisecond)
	require.InDelta(t, 2000, r.Estimate().Lower, 1e-6, "four samples: the quantile")
	r.Observe(300, 100*time.Millisecond)
	require.InDelta(t, 3000, r.Estimate().Lower, 1e-6)
	require.InDelta(t, 2800, r.Estimate().Mean, 1e-6)
}

func TestSilenceCountsByItsLength(t *testing.T) {
	r := newRate(t, RateOptions{})
	for range 9 {
		r.Observe(1000, 100*time.Millisecond)
	}
	require.InDelta(t, 10000, r.Estimate().Lower, 1e-6)
	r.Observe(0, 200*time.Millisecond)
	require.InDelta(t, 10000, r.Estimate().Lower, 1e-6, "less than a quarter of the time")
	r.Observe(0, 200*time.Millisecond)
	require.Zero(t, r.Estimate().Lower)
}

func TestTheWindowForgets(t *testing.T) {
	r := newRate(t, RateOptions{Window: 8})
	for range 100 {
		r.Observe(10, 100*time.Millisecond)
	}
	require.Equal(t, 8, r.Samples())
	for range 8 {
		r.Observe(1000, 100*time.Millisecond)
	}
	require.InDelta(t, 10000, r.Estimate().Lower, 1e-6)
	require.Equal(t, 8, cap(r.samples))
}

func TestLowerIsAQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := RateOptions{Quantile: rapid.Float64Range(0.01, 1).Draw(t, "quantile"), Window: rapid.IntRange(1, 40).Draw(t, "window")}
		r := newRate(t, o)
		var rates, took []float64
		for range rapid.IntRange(1, 60).Draw(t, "samples") {
			ms := rapid.IntRange(100, 900).Draw(t, "ms")
			bytes := rapid.Int64Range(0, 100000).Draw(t, "bytes")
			r.Observe(bytes, time.Duration(ms)*time.Millisecond)
			rates, took = append(rates, float64(bytes)/(float64(ms)/1000)), append(took, float64(ms)/1000)
		}
		from := max(0, len(rates)-o.Window)
		rates, took = rates[from:], took[from:]
		lower := r.Estimate().Lower
		if float64(len(rates))*o.Quantile < 1 {
			least := math.Inf(1)
			for _, v := range rates {
				least = min(least, v)
			}
			require.InDelta(t, least*float64(len(rates))/float64(len(rates)+1), lower, 1e-6)
			return
		}
		var below, upTo, all float64
		for i, v := range rates {
			all += took[i]
			if v < lower-1e-6 {
				below += took[i]
			}
			if v <= lower+1e-6 {
				upTo += took[i]
			}
		}
		require.LessOrEqual(t, below, o.Quantile*all+1e-6)
		require.GreaterOrEqual(t, upTo, o.Quantile*all-1e-6)
	})
}

func TestRateOptionsAreChecked(t *testing.T) {
	for _, o := range []RateOptions{{Quantile: -1}, {Quantile: 1.1}, {Quantile: math.NaN()}, {Window: -1}, {Window: MaxWindow + 1}, {Grain: -1}} {
		_, err := NewRate(o)
		require.ErrorIs(t, err, fault.Invalid, "%+v", o)
	}
	r := newRate(t, RateOptions{})
	r.Observe(-5, -time.Second)
	require.Zero(t, r.Estimate())
}
