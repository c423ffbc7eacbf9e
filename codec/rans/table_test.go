package rans_test

import (
	"math"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawHist(t *rapid.T) *[rans.Slots]uint32 {
	var hist [rans.Slots]uint32
	n := rapid.IntRange(1, 256).Draw(t, "symbols")
	first := rapid.IntRange(0, 256-n).Draw(t, "first")
	for i := range n {
		hist[first+i] = rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(0, 3), rapid.Uint32Range(0, 5000), rapid.Uint32()).Draw(t, "count")
	}
	hist[first] = max(hist[first], 1)
	return &hist
}

func TestNormalize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hist := drawHist(t)
		var freq [rans.Slots]uint16
		n := rans.Normalize(&freq, hist)
		sum, symbols := 0, 0
		for s, f := range freq {
			sum += int(f)
			require.Equal(t, hist[s] > 0, f > 0, "symbol %d", s)
			if f > 0 {
				symbols++
			}
		}
		require.Equal(t, rans.Slots, sum)
		require.Equal(t, symbols, n)
		for a := range freq {
			for b := range freq {
				if hist[a] > hist[b] {
					require.GreaterOrEqual(t, freq[a]+1, freq[b], "%d and %d", a, b)
				}
			}
		}
	})
}

func TestNormalizeKnown(t *testing.T) {
	for name, c := range map[string]struct{ hist, freq map[int]int }{
		"empty":            {nil, nil},
		"one":              {map[int]int{7: 3}, map[int]int{7: 256}},
		"halves":           {map[int]int{0: 5, 255: 5}, map[int]int{0: 128, 255: 128}},
		"thirds":           {map[int]int{1: 1, 2: 1, 3: 1}, map[int]int{1: 86, 2: 85, 3: 85}},
		"rare keeps one":   {map[int]int{1: 1, 2: 1 << 20}, map[int]int{1: 1, 2: 255}},
		"counts beyond 24": {map[int]int{1: 1, 2: math.MaxUint32, 3: math.MaxUint32}, map[int]int{1: 1, 2: 128, 3: 127}},
		"too much at once": {map[int]int{1: 1, 2: 1, 3: 1000000, 4: 500000}, map[int]int{1: 1, 2: 1, 3: 169, 4: 85}},
	} {
		t.Run(name, func(t *testing.T) {
			var hist [rans.Slots]uint32
			for s, n := range c.hist {
				hist[s] = uint32(n)
			}
			var freq [rans.Slots]uint16
			require.Equal(t, len(c.freq), rans.Normalize(&freq, &hist))
			for s, f := range freq {
				require.Equal(t, c.freq[s], int(f), "symbol %d", s)
			}
		})
	}
}

// All 256 symbols: everybody gets the one slot, however unequal they are.
func TestNormalizeFull(t *testing.T) {
	var hist [rans.Slots]uint32
	for s := range hist {
		hist[s] = uint32(1 + s*s*s)
	}
	var freq [rans.Slots]uint16
	require.Equal(t, 256, rans.Normalize(&freq, &hist))
	for s, f := range freq {
		require.EqualValues(t, 1, f, "symbol %d", s)
	}
}

// The rule loses almost nothing against the best frequencies.
func TestNormalizeIsNearOptimal(t *testing.T) {
	var hist [rans.Slots]uint32
	for s := range 40 {
		d := float64(s - 20)
		hist[s] = uint32(1e6*math.Exp(-d*d/18)) + 1
	}
	var freq [rans.Slots]uint16
	rans.Normalize(&freq, &hist)
	tab := tableOf(t, &hist)
	least := cost(tab, &hist)
	for a := range 40 {
		for b := range 40 {
			if a == b || freq[a] < 2 {
				continue
			}
			moved := freq
			moved[a]--
			moved[b]++
			other := new(rans.Table)
			require.NoError(t, other.Build(&moved))
			require.Greater(t, cost(other, &hist), least*0.9999, "a slot from %d to %d", a, b)
		}
	}
}

func TestTableCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := tableOf(t, drawHist(t))
		code := tab.AppendTo(nil)
		require.LessOrEqual(t, len(code), 2+rans.Slots)
		var back rans.Table
		n, err := back.Read(append(code, 1, 2, 3))
		require.NoError(t, err)
		require.Equal(t, len(code), n)
		require.Equal(t, *tab, back)
		for cut := range code {
			_, err := back.Read(code[:cut])
			require.ErrorIs(t, err, fault.Corrupt)
		}
		require.Equal(t, *tab, back, "an error leaves the table")
	})
}

func TestBadTables(t *testing.T) {
	tab := new(rans.Table)
	for name, code := range map[string][]byte{
		"empty":           {},
		"beyond 255":      {200, 56, 1},
		"first is zero":   {0, 2, 0, 128, 128},
		"last is zero":    {0, 2, 128, 128, 0},
		"sum too small":   {0, 1, 128, 127},
		"sum too large":   {0, 1, 128, 129},
		"sum wraps":       {0, 3, 255, 255, 255, 3},
		"a byte too few":  {0, 2, 128, 64},
		"none but a size": {0, 255},
	} {
		_, err := tab.Read(code)
		require.ErrorIs(t, err, fault.Corrupt, name)
	}
	var freq [rans.Slots]uint16
	require.ErrorIs(t, tab.Build(&freq), fault.Invalid)
	freq[0], freq[1] = 65535, 257
	require.ErrorIs(t, tab.Build(&freq), fault.Invalid)
	require.Equal(t, rans.Table{}, *tab)
}
