package rans_test

import (
	"math"
	"math/rand/v2"

	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// tester is what the helpers need of *testing.T, *testing.B and *rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

func coders(t tester) []*rans.Coder {
	t.Helper()
	var cs []*rans.Coder
	for _, k := range rans.Kernels() {
		c, err := rans.New(rans.Options{Kernel: k})
		require.NoError(t, err)
		require.Equal(t, k, c.Kernel())
		cs = append(cs, c)
	}
	return cs
}

func coder(t tester, k rans.Kernel) *rans.Coder {
	t.Helper()
	c, err := rans.New(rans.Options{Kernel: k})
	require.NoError(t, err)
	return c
}

// gauss returns n symbols: rounded normal values around the middle.
func gauss(rng *rand.Rand, n int, sigma float64, middle, most int) []byte {
	b := make([]byte, n)
	for i := range b {
		v := math.Round(rng.NormFloat64() * sigma)
		b[i] = byte(middle + int(max(-float64(most), min(float64(most), v))))
	}
	return b
}

func table(t tester, src []byte) *rans.Table {
	t.Helper()
	var hist [rans.Slots]uint32
	for _, s := range src {
		hist[s]++
	}
	if len(src) == 0 {
		hist[0] = 1
	}
	return tableOf(t, &hist)
}

func tableOf(t tester, hist *[rans.Slots]uint32) *rans.Table {
	t.Helper()
	var freq [rans.Slots]uint16
	rans.Normalize(&freq, hist)
	tab := new(rans.Table)
	require.NoError(t, tab.Build(&freq))
	return tab
}

// cost is what symbols with this histogram cost in bits, by the table's
// frequencies alone.
func cost(tab *rans.Table, hist *[rans.Slots]uint32) float64 {
	bits := 0.0
	for s, n := range hist {
		if n > 0 {
			bits -= float64(n) * math.Log2(float64(tab.Freq(byte(s)))/rans.Slots)
		}
	}
	return bits
}

func steps(symbols int) int { return (symbols + rans.Lanes - 1) / rans.Lanes }

// one returns the runs of a body that has a single table.
func one(t tester, src []byte) []rans.Run {
	if len(src) == 0 {
		return nil
	}
	return []rans.Run{{Table: table(t, src), Steps: steps(len(src))}}
}
