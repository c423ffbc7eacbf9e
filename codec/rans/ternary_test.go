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

// contexts returns n contexts of every shape: even, skewed, without one symbol,
// with only one.
func contexts(rng *rand.Rand, n int) []rans.Ternary {
	tabs := make([]rans.Ternary, n)
	for i := range tabs {
		var counts [3]uint32
		switch i % 4 {
		case 0:
			counts = [3]uint32{1, 1, 1}
		case 1:
			counts[rng.IntN(3)] = 5
		case 2:
			counts[0], counts[1], counts[2] = rng.Uint32N(100), rng.Uint32N(100), rng.Uint32N(100)
			counts[rng.IntN(3)] = 0
		default:
			counts[0], counts[1], counts[2] = rng.Uint32N(100), 1+rng.Uint32N(10000), rng.Uint32N(10)
		}
		rans.NormalizeTernary(&tabs[i], &counts)
	}
	return tabs
}

// draw returns contexts and symbols by the tables' own frequencies.
func draw(rng *rand.Rand, tabs []rans.Ternary, n int) (ctx, src []byte) {
	ctx, src = make([]byte, n), make([]byte, n)
	for i := range src {
		ctx[i] = byte(rng.IntN(len(tabs)))
		f, slot := tabs[ctx[i]], uint16(rng.IntN(rans.Slots))
		for slot >= f[src[i]] {
			slot -= f[src[i]]
			src[i]++
		}
	}
	return ctx, src
}

func ternary(t tester, tabs []rans.Ternary) *rans.TernaryTable {
	t.Helper()
	tab := new(rans.TernaryTable)
	require.NoError(t, tab.Build(tabs))
	return tab
}

func TestTernaryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		tabs := contexts(rng, rapid.IntRange(1, rans.MaxContexts).Draw(t, "contexts"))
		tab := ternary(t, tabs)
		n := rapid.OneOf(rapid.SampledFrom([]int{0, 1, 63, 64, 65}), rapid.IntRange(0, 3000)).Draw(t, "symbols")
		ctx, src := draw(rng, tabs, n)
		var want rans.State
		for l := range want {
			want[l] = uint16(256 + rng.IntN(65280))
		}
		first := want
		code, err := coder(t, rans.Go).EncodeTernary(nil, &want, tab, ctx, src)
		require.NoError(t, err)
		for _, c := range coders(t) {
			st := first
			got, err := c.EncodeTernary([]byte("x"), &st, tab, ctx, src)
			require.NoError(t, err)
			require.True(t, bytes.Equal(code, got[1:]), c.Kernel())
			require.Equal(t, want, st, c.Kernel())
			dst := bytes.Repeat([]byte{0xa5}, n+64)
			require.NoError(t, c.DecodeTernary(dst[:n:n], &st, tab, ctx, code), c.Kernel())
			require.True(t, bytes.Equal(src, dst[:n]), c.Kernel())
			require.Equal(t, bytes.Repeat([]byte{0xa5}, 64), dst[n:])
			require.Equal(t, first, st, c.Kernel())
		}
	})
}

func TestTernaryDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	tabs := contexts(rng, 20)
	tab := ternary(t, tabs)
	const n = 900
	ctx, src := draw(rng, tabs, n)
	var start rans.State
	start.Reset()
	st := start
	body, err := coder(t, rans.Go).EncodeTernary(nil, &st, tab, ctx, src)
	require.NoError(t, err)
	for _, c := range coders(t) {
		for cut := range body {
			dst, at := make([]byte, n), st
			require.ErrorIs(t, c.DecodeTernary(dst, &at, tab, ctx, body[:cut:cut]), fault.Corrupt, "%v: %d of %d", c.Kernel(), cut, len(body))
			require.Equal(t, st, at)
		}
		at := st
		require.ErrorIs(t, c.DecodeTernary(make([]byte, n), &at, tab, ctx, append(bytes.Clone(body), 0)), fault.Corrupt)
		for bit := range 8 * len(body) {
			bad := bytes.Clone(body)
			bad[bit/8] ^= 1 << (bit % 8)
			ref, got := make([]byte, n), make([]byte, n)
			refSt, gotSt := st, st
			refErr := coder(t, rans.Go).DecodeTernary(ref, &refSt, tab, ctx, bad)
			gotErr := c.DecodeTernary(got, &gotSt, tab, ctx, bad)
			require.Equal(t, refErr == nil, gotErr == nil, "%v: bit %d", c.Kernel(), bit)
			require.Equal(t, refSt, gotSt)
			if refErr == nil {
				require.Equal(t, ref, got)
			}
		}
	}
}

func TestTernaryBadInput(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	tabs := []rans.Ternary{{100, 100, 56}, {0, 200, 56}, {0, 0, 256}}
	tab := ternary(t, tabs)
	ctx, src := draw(rng, tabs, 200)
	for i := range src {
		ctx[i] = 0
	}
	for _, c := range coders(t) {
		for i := range src {
			for _, wrong := range [][2]byte{{0, 3}, {0, 255}, {1, 0}, {2, 0}, {2, 1}, {3, 1}, {20, 0}, {21, 2}, {64, 1}, {255, 0}} {
				badCtx, badSrc := bytes.Clone(ctx), bytes.Clone(src)
				badCtx[i], badSrc[i] = wrong[0], wrong[1]
				var st rans.State
				st.Reset()
				_, err := c.EncodeTernary(nil, &st, tab, badCtx, badSrc)
				require.ErrorIs(t, err, fault.Invalid, "%v: %d is %v", c.Kernel(), i, wrong)
				if wrong[0] > 2 {
					err := c.DecodeTernary(badSrc, &st, tab, badCtx, make([]byte, 250))
					require.ErrorIs(t, err, fault.Invalid, "%v: context %d is %d", c.Kernel(), i, wrong[0])
				}
			}
		}
		var st rans.State
		st.Reset()
		_, err := c.EncodeTernary(nil, &st, tab, ctx[1:], src)
		require.ErrorIs(t, err, fault.Invalid)
		require.ErrorIs(t, c.DecodeTernary(src, &st, tab, ctx[1:], nil), fault.Invalid)
		require.ErrorIs(t, c.DecodeTernary(src, &st, new(rans.TernaryTable), ctx, nil), fault.Invalid)
		require.ErrorIs(t, c.DecodeTernary(src, new(rans.State), tab, ctx, nil), fault.Corrupt)
	}
	for name, bad := range map[string][]rans.Ternary{
		"none":     {},
		"too many": make([]rans.Ternary, rans.MaxContexts+1),
		"sum":      {{100, 100, 55}},
		"wraps":    {{65535, 1, 256}},
	} {
		require.ErrorIs(t, tab.Build(bad), fault.Invalid, name)
	}
	var f rans.Ternary
	rans.NormalizeTernary(&f, &[3]uint32{})
	require.Equal(t, rans.Ternary{0, 256, 0}, f)
}

func TestTernaryNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 26))
	tabs := contexts(rng, 20)
	tab := ternary(t, tabs)
	ctx, src := draw(rng, tabs, 5000)
	dst := make([]byte, len(src))
	buf := make([]byte, 0, rans.Bound(len(src)))
	for _, c := range coders(t) {
		require.Zero(t, testing.AllocsPerRun(20, func() {
			var st rans.State
			st.Reset()
			body, err := c.EncodeTernary(buf, &st, tab, ctx, src)
			if err == nil {
				err = c.DecodeTernary(dst, &st, tab, ctx, body)
			}
			if err == nil {
				err = tab.Build(tabs)
			}
			if err != nil || !st.AtStart() {
				panic("does not come back")
			}
		}), c.Kernel())
	}
}

func TestTernaryPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var bodies [2]struct {
			ctx, src, body []byte
			tab            *rans.TernaryTable
			st             rans.State
		}
		bad := rapid.IntRange(-1, 3).Draw(t, "damaged")
		for i := range bodies {
			b := &bodies[i]
			tabs := contexts(rng, rapid.IntRange(1, rans.MaxContexts).Draw(t, "contexts"))
			b.tab = ternary(t, tabs)
			b.ctx, b.src = draw(rng, tabs, rapid.IntRange(0, 1500).Draw(t, "symbols"))
			b.st.Reset()
			var err error
			b.body, err = coder(t, rans.Go).EncodeTernary(nil, &b.st, b.tab, b.ctx, b.src)
			require.NoError(t, err)
			switch {
			case bad == i: // cut, or longer
				b.body = append(b.body, 1)[:rapid.IntRange(0, len(b.body)+1).Draw(t, "length")]
			case bad == i+2 && len(b.ctx) > 0:
				b.ctx[rng.IntN(len(b.ctx))] = byte(len(tabs) + rng.IntN(200))
			}
		}
		for _, c := range coders(t) {
			var args [2]rans.TernaryBody
			var states, want [2]rans.State
			var errs [2]error
			for i, b := range bodies {
				states[i], want[i] = b.st, b.st
				args[i] = rans.TernaryBody{Dst: make([]byte, len(b.src)), Contexts: b.ctx, State: &states[i], Table: b.tab, Body: b.body}
				errs[i] = c.DecodeTernary(make([]byte, len(b.src)), &want[i], b.tab, b.ctx, b.body)
			}
			err := c.DecodeTernaryPair(&args[0], &args[1])
			if errs[0] != nil || errs[1] != nil {
				require.Error(t, err)
				require.Contains(t, []error{errs[0], errs[1]}, err, c.Kernel())
				require.Equal(t, [2]rans.State{bodies[0].st, bodies[1].st}, states)
				continue
			}
			require.NoError(t, err, c.Kernel())
			require.Equal(t, want, states, c.Kernel())
			for i, b := range bodies {
				require.True(t, bytes.Equal(b.src, args[i].Dst), "%v: %d", c.Kernel(), i)
			}
		}
	})
}

func TestEncodeTernaryPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		bad := rapid.IntRange(-1, 1).Draw(t, "damaged")
		var args [2]rans.TernarySource
		var want [2][]byte
		var states, first, after [2]rans.State
		for i := range args {
			tabs := contexts(rng, rapid.IntRange(1, rans.MaxContexts).Draw(t, "contexts"))
			ctx, src := draw(rng, tabs, rapid.IntRange(0, 1500).Draw(t, "symbols"))
			args[i] = rans.TernarySource{State: &states[i], Table: ternary(t, tabs), Contexts: ctx, Src: src}
			first[i].Reset()
			after[i] = first[i]
			var err error
			want[i], err = coder(t, rans.Go).EncodeTernary(nil, &after[i], args[i].Table, ctx, src)
			require.NoError(t, err)
		}
		if bad >= 0 && len(args[bad].Src) > 0 {
			args[bad].Src[rng.IntN(len(args[bad].Src))] = 3
		} else {
			bad = -1
		}
		for _, c := range coders(t) {
			states = first
			args[0].Dst, args[1].Dst = nil, nil
			err := c.EncodeTernaryPair(&args[0], &args[1])
			if bad >= 0 {
				require.ErrorIs(t, err, fault.Invalid, c.Kernel())
				require.Equal(t, first, states)
				continue
			}
			require.NoError(t, err, c.Kernel())
			require.Equal(t, after, states)
			for i := range want {
				require.True(t, bytes.Equal(want[i], args[i].Dst), "%v: %d", c.Kernel(), i)
			}
		}
	})
}
