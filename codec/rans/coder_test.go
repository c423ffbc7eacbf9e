package rans_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sources are the shapes that have gone wrong in some coder at some time.
func sources() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	m := map[string][]byte{}
	for _, n := range []int{0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 4096, 32768} {
		m[fmt.Sprintf("gauss/%d", n)] = gauss(rng, n, 2, 32, 15)
		m[fmt.Sprintf("single/%d", n)] = bytes.Repeat([]byte{200}, n)
		m[fmt.Sprintf("skewed/%d", n)] = gauss(rng, n, 0.2, 3, 3)
		wide := make([]byte, n)
		for i := range wide {
			wide[i] = byte(rng.Uint32())
		}
		m[fmt.Sprintf("wide/%d", n)] = wide
		m[fmt.Sprintf("middle/%d", n)] = gauss(rng, n, 9, 64, 60)
	}
	two := bytes.Repeat([]byte{7}, 5000)
	two[4321] = 9
	m["one in 5000"] = two
	m["0 and 255"] = bytes.Repeat([]byte{0, 255}, 333)
	return m
}

func TestRoundTrip(t *testing.T) {
	ref := coder(t, rans.Go)
	for name, src := range sources() {
		t.Run(name, func(t *testing.T) {
			runs := one(t, src)
			want, err := ref.EncodeStream(nil, runs, src)
			require.NoError(t, err)
			require.LessOrEqual(t, len(want), rans.StateSize+rans.Bound(len(src)))
			for _, c := range coders(t) {
				got, err := c.EncodeStream([]byte("before"), runs, src)
				require.NoError(t, err)
				require.Equal(t, "before", string(got[:6]))
				require.True(t, bytes.Equal(want, got[6:]), "%v: bytes differ from the reference's", c.Kernel())
				dst := make([]byte, len(src))
				require.NoError(t, c.DecodeStream(dst, runs, want), c.Kernel())
				require.True(t, bytes.Equal(src, dst), "%v: symbols differ", c.Kernel())
			}
		})
	}
}

// A body is nearly as small as its table's cost: what 8-bit slots and 16-bit
// lanes lose is bounded, and the order of the slots is worth keeping.
func TestSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	c := coder(t, rans.Auto)
	for _, sigma := range []float64{0.3, 0.5, 1, 2, 4} {
		src := gauss(rng, 1<<18, sigma, 32, 31)
		var hist [rans.Slots]uint32
		for _, s := range src {
			hist[s]++
		}
		runs := one(t, src)
		out, err := c.EncodeStream(nil, runs, src)
		require.NoError(t, err)
		require.InEpsilon(t, cost(runs[0].Table, &hist)/8+rans.StateSize, float64(len(out)), 0.005, "sigma %v", sigma)
	}
	require.Equal(t, 0, bodySize(t, c, bytes.Repeat([]byte{5}, 1<<16)), "constant symbols cost nothing")
}

func bodySize(t *testing.T, c *rans.Coder, src []byte) int {
	out, err := c.EncodeStream(nil, one(t, src), src)
	require.NoError(t, err)
	return len(out) - rans.StateSize
}

func TestRunsAndChains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := coder(t, rans.Go)
		type body struct {
			src, code []byte
			runs      []rans.Run
		}
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 0))
		bodies := make([]body, rapid.IntRange(1, 3).Draw(t, "bodies"))
		for i := range bodies {
			b := &bodies[i]
			for range rapid.IntRange(0, 6).Draw(t, "runs") {
				n := rapid.IntRange(1, 9).Draw(t, "steps")
				sigma := rapid.SampledFrom([]float64{0, 0.1, 0.5, 2, 8, 40}).Draw(t, "sigma")
				middle := rapid.SampledFrom([]int{31, 63, 128}).Draw(t, "middle")
				part := gauss(rng, n*rans.Lanes, sigma, middle, middle)
				b.src = append(b.src, part...)
				b.runs = append(b.runs, rans.Run{Table: table(t, part), Steps: n})
			}
			if len(b.src) > 0 {
				b.src = b.src[:len(b.src)-rapid.IntRange(0, rans.Lanes-1).Draw(t, "rest")]
			}
		}
		var want rans.State
		want.Reset()
		for i := len(bodies) - 1; i >= 0; i-- {
			var err error
			bodies[i].code, err = ref.Encode(nil, &want, bodies[i].runs, bodies[i].src)
			require.NoError(t, err)
		}
		for _, c := range coders(t) {
			var st rans.State
			st.Reset()
			for i := len(bodies) - 1; i >= 0; i-- {
				code, err := c.Encode(nil, &st, bodies[i].runs, bodies[i].src)
				require.NoError(t, err)
				require.True(t, bytes.Equal(bodies[i].code, code), "%v: body %d", c.Kernel(), i)
			}
			require.Equal(t, want, st, c.Kernel())
			for i, b := range bodies {
				dst := make([]byte, len(b.src))
				require.NoError(t, c.Decode(dst, &st, b.runs, b.code), "%v: body %d", c.Kernel(), i)
				require.True(t, bytes.Equal(b.src, dst), "%v: body %d", c.Kernel(), i)
			}
			require.True(t, st.AtStart(), c.Kernel())
		}
	})
}

func TestBadRuns(t *testing.T) {
	src := bytes.Repeat([]byte{1, 2}, 100)
	tab := table(t, src)
	other := table(t, []byte{3, 4})
	for name, runs := range map[string][]rans.Run{
		"none":            nil,
		"too few":         {{tab, 3}},
		"too many":        {{tab, 4}, {tab, 1}},
		"too long":        {{tab, 5}},
		"overflow":        {{tab, 1 << 62}, {tab, 1 << 62}, {tab, 1 << 62}, {tab, 1<<62 + 4}},
		"negative":        {{tab, -1}, {tab, 5}},
		"empty":           {{tab, 4}, {tab, 0}},
		"no table":        {{nil, 4}},
		"unbuilt table":   {{new(rans.Table), 4}},
		"another's table": {{tab, 1}, {other, 1}, {tab, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range coders(t) {
				var st, was rans.State
				st.Reset()
				was = st
				out, err := c.Encode([]byte("x"), &st, runs, src)
				require.ErrorIs(t, err, fault.Invalid, c.Kernel())
				require.Equal(t, "x", string(out))
				require.Equal(t, was, st)
				if name != "another's table" {
					require.ErrorIs(t, c.Decode(make([]byte, len(src)), &st, runs, nil), fault.Invalid, c.Kernel())
				}
			}
		})
	}
}

// Every symbol without a slot is found, wherever it lies.
func TestSymbolWithoutSlot(t *testing.T) {
	for _, n := range []int{64, 128, 130} {
		for _, top := range []byte{40, 100, 250} {
			good := bytes.Repeat([]byte{2, 5, top, 2}, n/4+1)[:n]
			runs := one(t, good)
			for i := range n {
				for _, wrong := range []byte{0, 3, 66, 127, 130, 194, 255} {
					src := bytes.Clone(good)
					src[i] = wrong
					for _, c := range coders(t) {
						var st rans.State
						st.Reset()
						_, err := c.Encode(nil, &st, runs, src)
						require.ErrorIs(t, err, fault.Invalid, "%v: %d of %d is %d", c.Kernel(), i, n, wrong)
					}
				}
			}
		}
	}
	single := one(t, bytes.Repeat([]byte{9}, 100))
	for _, c := range coders(t) {
		src := bytes.Repeat([]byte{9}, 100)
		src[99] = 8
		_, err := c.EncodeStream(nil, single, src)
		require.ErrorIs(t, err, fault.Invalid)
	}
}

func TestBadState(t *testing.T) {
	src := gauss(rand.New(rand.NewPCG(5, 6)), 200, 2, 32, 9)
	runs := one(t, src)
	for _, c := range coders(t) {
		for l := range rans.Lanes {
			var st rans.State
			st.Reset()
			st[l] = 255
			_, err := c.Encode(nil, &st, runs, src)
			require.ErrorIs(t, err, fault.Invalid)
			require.ErrorIs(t, c.Decode(make([]byte, len(src)), &st, runs, make([]byte, 100)), fault.Corrupt)
			require.ErrorIs(t, new(rans.State).Read(st.AppendTo(nil)), fault.Corrupt)
		}
	}
	require.ErrorIs(t, new(rans.State).Read(make([]byte, rans.StateSize-1)), fault.Corrupt)
}

func TestNoAllocations(t *testing.T) {
	src := gauss(rand.New(rand.NewPCG(7, 8)), 10000, 2, 32, 9)
	runs := one(t, src)
	for _, c := range coders(t) {
		buf := make([]byte, 0, rans.StateSize+rans.Bound(len(src)))
		dst := make([]byte, len(src))
		var stream []byte
		require.Zero(t, testing.AllocsPerRun(20, func() {
			var err error
			if stream, err = c.EncodeStream(buf, runs, src); err != nil {
				panic(err)
			}
		}), "%v: encode", c.Kernel())
		require.Zero(t, testing.AllocsPerRun(20, func() {
			if err := c.DecodeStream(dst, runs, stream); err != nil {
				panic(err)
			}
		}), "%v: decode", c.Kernel())
	}
	var hist [rans.Slots]uint32
	hist[3], hist[9] = 10, 1000
	tab, freq := new(rans.Table), new([rans.Slots]uint16)
	require.Zero(t, testing.AllocsPerRun(20, func() {
		rans.Normalize(freq, &hist)
		if err := tab.Build(freq); err != nil {
			panic(err)
		}
	}), "tables")
}

func TestKernels(t *testing.T) {
	require.Contains(t, rans.Kernels(), rans.Go)
	c := coder(t, rans.Auto)
	require.Equal(t, rans.Kernels()[0], c.Kernel())
	_, err := rans.New(rans.Options{Kernel: 77})
	require.ErrorIs(t, err, fault.Unavailable)
	require.Equal(t, "avx512", rans.AVX512.String())
	require.Equal(t, "kernel(77)", rans.Kernel(77).String())
}
