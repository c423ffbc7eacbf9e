package slowlink

import (
	_ "embed"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/traces.txt
var recorded string

// span is a time of constant bandwidth.
type span struct {
	took time.Duration
	rate float64 // bytes a second
}

// Trace is what a link carries, over and over.
type Trace struct {
	Name string
	// Latency is from a request to its first byte.
	Latency time.Duration
	spans   []span
	starts  []time.Duration // of the spans, and the end
}

func newTrace(name string, latency time.Duration, spans []span) *Trace {
	t := &Trace{Name: name, Latency: latency, spans: spans, starts: make([]time.Duration, 1, len(spans)+1)}
	for i, s := range spans {
		t.starts = append(t.starts, t.starts[i]+s.took)
	}
	return t
}

// whole is how long the trace is.
func (t *Trace) whole() time.Duration { return t.starts[len(t.spans)] }

// endless stands for what does not come within many times the trace.
const endless = 1000 * time.Hour

// arrival is when so many bytes have come that begin at a time.
func (t *Trace) arrival(begin time.Duration, bytes int64) time.Duration {
	left := float64(bytes)
	at := begin % t.whole()
	i := 0
	for t.starts[i+1] <= at {
		i++
	}
	for now := begin; now < begin+endless; i = (i + 1) % len(t.spans) {
		s := t.spans[i]
		lasts := t.starts[i+1] - at
		if can := s.rate * lasts.Seconds(); can < left {
			left -= can
			now += lasts
			at = t.starts[i+1] % t.whole()
			continue
		}
		return now + time.Duration(left/s.rate*float64(time.Second))
	}
	return begin + endless
}

// Recorded returns the traces of a kind in testdata.
func Recorded(kind string) ([]*Trace, error) {
	lines := strings.Split(strings.TrimSpace(recorded), "\n")
	var out []*Trace
	for i := 0; i+1 < len(lines); i += 2 {
		head := strings.Fields(lines[i])
		if len(head) != 3 {
			return nil, fmt.Errorf("traces: line %d is no head", i+1)
		}
		if head[0] != kind {
			continue
		}
		ms, err := strconv.Atoi(head[2])
		if err != nil {
			return nil, fmt.Errorf("traces: line %d: %w", i+1, err)
		}
		var spans []span
		for _, word := range strings.Fields(lines[i+1]) {
			kbps, took, other := strings.Cut(word, "@")
			if !other {
				took = "1000"
			}
			k, err := strconv.ParseFloat(kbps, 64)
			if err != nil {
				return nil, fmt.Errorf("traces: line %d: %w", i+2, err)
			}
			d, err := strconv.Atoi(took)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("traces: line %d: %q is no sample", i+2, word)
			}
			spans = append(spans, span{time.Duration(d) * time.Millisecond, k * 125})
		}
		out = append(out, newTrace(head[1], time.Duration(ms)*time.Millisecond, spans))
	}
	return out, nil
}

// Markov draws a trace as Pensieve's synthetic ones are (Mao, Netravali,
// Alizadeh: Neural Adaptive Video Streaming with Pensieve, SIGCOMM 2017, section
// 5.3): states are average rates from 0.2 to 4.3 Mbit/s, a step to another state is
// the likelier the nearer it is (geometric), and each second's rate is normal
// around the state's average with a variance drawn from 0.05 to 0.5 for the trace.
// The paper leaves open how many states there are, how likely a step is, and what
// happens to negative rates: 20, one half, and at least 0.05 Mbit/s here.
func Markov(seed uint64, seconds int) *Trace {
	g := rand.New(rand.NewPCG(seed, 1))
	const states, low, high = 20, 0.2, 4.3
	variance := 0.05 + 0.45*g.Float64()
	state := g.IntN(states)
	spans := make([]span, seconds)
	for i := range spans {
		mean := low + (high-low)*float64(state)/(states-1)
		mbit := max(0.05, mean+g.NormFloat64()*math.Sqrt(variance))
		spans[i] = span{time.Second, mbit * 125e3}
		for distance := 0; ; distance++ {
			if g.IntN(2) == 0 {
				continue
			}
			next := state + distance
			if g.IntN(2) == 0 {
				next = state - distance
			}
			if next >= 0 && next < states {
				state = next
			}
			break
		}
	}
	return newTrace(fmt.Sprintf("markov %d", seed), 80*time.Millisecond, spans)
}

// Uniform draws a trace as CacheGen's evaluation does (arXiv 2310.07240, section
// 7; trace_generator.py of its repository): a rate for each chunk, uniform in 0.1
// to 10 Gbit/s. Here each lasts a tenth of the deadline, whatever is sent in it.
func Uniform(seed uint64, deadline time.Duration) *Trace {
	g := rand.New(rand.NewPCG(seed, 2))
	spans := make([]span, 200)
	for i := range spans {
		spans[i] = span{deadline / 10, (0.1 + 9.9*g.Float64()) * 125e6}
	}
	return newTrace(fmt.Sprintf("uniform %d", seed), time.Millisecond, spans)
}
