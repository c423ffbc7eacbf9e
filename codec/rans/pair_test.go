package rans_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type coded struct {
	src, body []byte
	runs      []rans.Run
	state     rans.State
}

// drawBody returns any body and the state before it.
func drawBody(t *rapid.T) (b coded) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	for range rapid.IntRange(0, 8).Draw(t, "runs") {
		n := rapid.IntRange(1, 12).Draw(t, "steps")
		part := gauss(rng, n*rans.Lanes, rapid.SampledFrom([]float64{0, 0.1, 1, 5, 40}).Draw(t, "sigma"), 63, 63)
		b.src = append(b.src, part...)
		b.runs = append(b.runs, rans.Run{Table: table(t, part), Steps: n})
	}
	if len(b.src) > 0 {
		b.src = b.src[:len(b.src)-rapid.SampledFrom([]int{0, 0, 1, 63}).Draw(t, "rest")]
	}
	b.state.Reset()
	var err error
	b.body, err = coder(t, rans.Go).Encode(nil, &b.state, b.runs, b.src)
	require.NoError(t, err)
	return b
}

func TestPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bodies := [2]coded{drawBody(t), drawBody(t)}
		// One of them may be damaged, in a byte or in its length.
		bad := rapid.IntRange(-1, 1).Draw(t, "damaged")
		if bad >= 0 {
			b := &bodies[bad]
			b.body = append(b.body, 7)
			b.body[rapid.IntRange(0, len(b.body)-1).Draw(t, "byte")] ^= 0x11
			b.body = b.body[:rapid.IntRange(0, len(b.body)).Draw(t, "length")]
		}
		// What is said to come next is not touched, however small it is.
		next := rans.Rows{Memory: bytes.Repeat([]byte{9}, 100), Stride: 512, Width: rapid.SampledFrom([]int{0, 128, 256}).Draw(t, "width")}
		for _, c := range coders(t) {
			var args [2]rans.Body
			var states, want [2]rans.State
			var wantErr error
			for i, b := range bodies {
				states[i], want[i] = b.state, b.state
				args[i] = rans.Body{Dst: make([]byte, len(b.src)), State: &states[i], Runs: b.runs, Body: b.body}
				args[i].Next = next
				if err := c.Decode(make([]byte, len(b.src)), &want[i], b.runs, b.body); wantErr == nil {
					wantErr = err
				}
			}
			err := c.DecodePair(&args[0], &args[1])
			require.Equal(t, bytes.Repeat([]byte{9}, 100), next.Memory)
			if wantErr != nil {
				require.EqualError(t, err, wantErr.Error(), c.Kernel())
				require.ErrorIs(t, err, fault.Corrupt)
				require.Equal(t, [2]rans.State{bodies[0].state, bodies[1].state}, states, c.Kernel())
				continue
			}
			require.NoError(t, err, c.Kernel())
			require.Equal(t, want, states, c.Kernel())
			for i, b := range bodies {
				if i != bad {
					require.True(t, bytes.Equal(b.src, args[i].Dst), "%v: body %d", c.Kernel(), i)
				}
			}
		}
	})
}

func TestPairBadInput(t *testing.T) {
	src := bytes.Repeat([]byte{1, 2, 3}, 100)
	runs := one(t, src)
	for _, c := range coders(t) {
		var a, b rans.State
		a.Reset()
		b.Reset()
		body, err := c.Encode(nil, &a, runs, src)
		require.NoError(t, err)
		good := rans.Body{Dst: make([]byte, 300), State: &a, Runs: runs, Body: body}
		other := rans.Body{Dst: make([]byte, 300), State: &b}
		was := a
		require.ErrorIs(t, c.DecodePair(&good, &other), fault.Invalid)
		require.ErrorIs(t, c.DecodePair(&other, &good), fault.Invalid)
		other.Runs, b[3] = runs, 0
		require.ErrorIs(t, c.DecodePair(&good, &other), fault.Corrupt)
		require.Equal(t, was, a)
		b = was
		other.Body = body
		require.Zero(t, testing.AllocsPerRun(20, func() {
			a, b = was, was
			if err := c.DecodePair(&good, &other); err != nil {
				panic(err)
			}
		}), c.Kernel())
		require.Equal(t, src, other.Dst)
		require.Equal(t, src, good.Dst)
	}
}

func TestEncodePair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bodies := [2]coded{drawBody(t), drawBody(t)}
		bad := rapid.IntRange(-1, 1).Draw(t, "damaged")
		if bad >= 0 && len(bodies[bad].src) > 0 {
			b := bodies[bad]
			i := rapid.IntRange(0, len(b.src)-1).Draw(t, "symbol")
			run, step := 0, i/rans.Lanes
			for step >= b.runs[run].Steps {
				step -= b.runs[run].Steps
				run++
			}
			for s := range 256 {
				if b.runs[run].Table.Freq(byte(255-s)) == 0 {
					b.src[i] = byte(255 - s)
					break
				}
			}
		} else {
			bad = -1
		}
		for _, c := range coders(t) {
			var args [2]rans.Source
			var states [2]rans.State
			for i, b := range bodies {
				states[i].Reset()
				args[i] = rans.Source{Dst: []byte{9}, State: &states[i], Runs: b.runs, Src: b.src}
			}
			first := states
			err := c.EncodePair(&args[0], &args[1])
			if bad >= 0 {
				require.ErrorIs(t, err, fault.Invalid, c.Kernel())
				require.Equal(t, first, states)
				require.Equal(t, []byte{9}, args[0].Dst)
				require.Equal(t, []byte{9}, args[1].Dst)
				continue
			}
			require.NoError(t, err, c.Kernel())
			for i, b := range bodies {
				require.True(t, bytes.Equal(append([]byte{9}, b.body...), args[i].Dst), "%v: body %d", c.Kernel(), i)
				require.Equal(t, b.state, states[i], c.Kernel())
			}
		}
	})
}

func TestEncodePairBadInput(t *testing.T) {
	src := bytes.Repeat([]byte{1, 2, 3}, 100)
	runs := one(t, src)
	for _, c := range coders(t) {
		var a, b rans.State
		a.Reset()
		x := rans.Source{State: &a, Runs: runs, Src: src, Dst: make([]byte, 0, rans.Bound(300))}
		y := rans.Source{State: &b, Runs: runs, Src: src, Dst: make([]byte, 0, rans.Bound(300))}
		require.ErrorIs(t, c.EncodePair(&x, &y), fault.Invalid)
		b.Reset()
		y.Runs = nil
		require.ErrorIs(t, c.EncodePair(&x, &y), fault.Invalid)
		y.Runs = runs
		require.Zero(t, testing.AllocsPerRun(20, func() {
			x.Dst, y.Dst = x.Dst[:0], y.Dst[:0]
			a.Reset()
			b.Reset()
			if err := c.EncodePair(&x, &y); err != nil {
				panic(err)
			}
		}), c.Kernel())
	}
}

// Narrow tables are looked up modulo 64, with symbol 0 beside symbols that lie
// elsewhere: what has no slot is found nevertheless, wherever it is.
func TestNarrowTablesRefuse(t *testing.T) {
	for name, with := range map[string][]int{"escape": {0, 40, 41, 60, 102}, "none": {40, 41, 60, 102}, "low": {0, 1, 63}, "wide": {0, 40, 104}} {
		var freq [rans.Slots]uint16
		for _, s := range with {
			freq[s] = 1
		}
		freq[with[1]] += uint16(rans.Slots - len(with))
		var table rans.Table
		require.NoError(t, table.Build(&freq))
		runs := []rans.Run{{Table: &table, Steps: 4}}
		good := make([]byte, 4*rans.Lanes)
		for i := range good {
			good[i] = byte(with[i%len(with)])
		}
		for _, k := range rans.Kernels() {
			c, err := rans.New(rans.Options{Kernel: k})
			require.NoError(t, err)
			body, err := c.EncodeStream(nil, runs, good)
			require.NoError(t, err, "%s, %v", name, k)
			back := make([]byte, len(good))
			require.NoError(t, c.DecodeStream(back, runs, body))
			require.Equal(t, good, back)
			for s := range rans.Slots {
				if table.Freq(byte(s)) > 0 {
					continue
				}
				bad := append([]byte{}, good...)
				bad[(s*37)%len(bad)] = byte(s)
				_, err := c.EncodeStream(nil, runs, bad)
				require.ErrorIs(t, err, fault.Invalid, "%s, %v: symbol %d", name, k, s)
				var a, b rans.State
				a.Reset()
				b.Reset()
				for _, pair := range [][2][]byte{{good, bad}, {bad, good}} {
					err := c.EncodePair(&rans.Source{State: &a, Runs: runs, Src: pair[0]}, &rans.Source{State: &b, Runs: runs, Src: pair[1]})
					require.ErrorIs(t, err, fault.Invalid, "%s, %v: symbol %d", name, k, s)
				}
			}
		}
	}
}
