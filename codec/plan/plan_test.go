package plan

import (
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The run-length code against the plainest thing that can hold a plan.
func TestMapAgainstAnArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units, tokens := rapid.IntRange(1, 6).Draw(t, "units"), rapid.IntRange(1, 9).Draw(t, "tokens")
		start := uint8(rapid.IntRange(0, 3).Draw(t, "start"))
		m := Uniform(units, tokens, start)
		want := make([]uint8, units*tokens)
		for i := range want {
			want[i] = start
		}
		for range rapid.IntRange(0, 6).Draw(t, "sets") {
			first := rapid.IntRange(0, units).Draw(t, "first")
			last := rapid.IntRange(first, units).Draw(t, "last")
			low := rapid.IntRange(0, tokens).Draw(t, "low")
			high := rapid.IntRange(low, tokens).Draw(t, "high")
			level := uint8(rapid.IntRange(0, 3).Draw(t, "level"))
			m = m.Set(tokens, first, last, low, high, level)
			for u := first; u < last; u++ {
				for k := low; k < high; k++ {
					want[u*tokens+k] = level
				}
			}
		}
		require.NoError(t, m.Validate(units, tokens, 0, 3))
		skip := rapid.IntRange(0, units-1).Draw(t, "skip")
		c := m.Walk()
		c.Skip(skip * tokens)
		for u := skip; u < units; u++ {
			runs := c.Next(nil, tokens)
			var got []uint8
			for _, r := range runs {
				for range r.Tokens {
					got = append(got, r.Level)
				}
			}
			require.Equal(t, want[u*tokens:(u+1)*tokens], got)
			for level := range uint8(4) {
				active := make([]bool, tokens)
				end := -1
				for _, s := range Active(nil, runs, level) {
					require.Greater(t, s.Low, end, "spans touch or are out of order")
					end = s.High
					for k := s.Low; k < s.High; k++ {
						active[k] = true
					}
				}
				for k := range tokens {
					require.Equal(t, got[k] <= level, active[k])
				}
			}
		}
	})
}

func TestValidateRefuses(t *testing.T) {
	for name, m := range map[string]Map{
		"nothing":       {},
		"too short":     {{5, 1}},
		"too long":      {{7, 1}},
		"empty run":     {{0, 1}, {6, 2}},
		"negative run":  {{-1, 1}, {7, 2}},
		"neighbours":    {{3, 1}, {3, 1}},
		"finer level":   {{6, 0}},
		"coarser level": {{6, 3}},
	} {
		require.ErrorIs(t, m.Validate(2, 3, 1, 2), fault.Invalid, name)
	}
	require.NoError(t, Map{{5, 1}, {1, 2}}.Validate(2, 3, 1, 2))
}
