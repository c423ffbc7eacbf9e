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

// recodable is bytes, what symbols they are, and tables for either; ok says whether
// all of these have slots.
type recodable struct {
	src, symbols     []byte
	runs, symbolRuns []rans.Run
	ok               bool
}

func drawRecodable(t *rapid.T) (r recodable) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	for range rapid.IntRange(1, 5).Draw(t, "runs") {
		first := rapid.OneOf(rapid.IntRange(-130, 260), rapid.IntRange(80, 128)).Draw(t, "first")
		n := rapid.IntRange(1, 8).Draw(t, "steps")
		src := gauss(rng, n*rans.Lanes, rapid.SampledFrom([]float64{0, 0.1, 1, 5, 40}).Draw(t, "sigma"), rapid.IntRange(0, 255).Draw(t, "middle"), 255)
		symbols := make([]byte, len(src))
		escapes := rapid.IntRange(0, 1).Draw(t, "escapes")
		var hist [rans.Slots]uint32
		hist[0] = uint32(escapes)
		for _, b := range src {
			if s := int(b) - first + 1; s >= 1 && s <= 255 && (escapes == 0 || rng.IntN(40) > 0) {
				hist[s]++
			}
		}
		if hist == [rans.Slots]uint32{} {
			hist[0] = 1
		}
		tab := tableOf(t, &hist)
		for i, b := range src {
			if s := int(b) - first + 1; s >= 1 && s <= 255 && tab.Freq(byte(s)) > 0 {
				symbols[i] = byte(s)
			}
		}
		again := new(rans.Table)
		again.Recode(tab, first)
		r.src, r.symbols = append(r.src, src...), append(r.symbols, symbols...)
		r.runs = append(r.runs, rans.Run{Table: again, Steps: n})
		r.symbolRuns = append(r.symbolRuns, rans.Run{Table: tab, Steps: n})
	}
	rest := rapid.SampledFrom([]int{0, 0, 1, 63}).Draw(t, "rest")
	r.src, r.symbols, r.ok = r.src[:len(r.src)-rest], r.symbols[:len(r.symbols)-rest], true
	at := 0
	for _, run := range r.symbolRuns {
		for end := min(at+rans.Lanes*run.Steps, len(r.symbols)); at < end; at++ {
			r.ok = r.ok && run.Table.Freq(r.symbols[at]) > 0
		}
	}
	return r
}

// The bodies are those of the symbols, by every kernel, alone and in pairs.
func TestRecode(t *testing.T) {
	reference := coder(t, rans.Go)
	rapid.Check(t, func(t *rapid.T) {
		r, other := drawRecodable(t), drawRecodable(t)
		for _, c := range coders(t) {
			var sources [2]rans.Source
			var states [2]rans.State
			for i, x := range []*recodable{&r, &other} {
				var want, got rans.State
				want.Reset()
				got.Reset()
				body, err := c.Encode(nil, &got, x.runs, x.src)
				if !x.ok {
					require.ErrorIs(t, err, fault.Invalid, c.Kernel())
				} else {
					require.NoError(t, err, c.Kernel())
					plain, err := reference.Encode(nil, &want, x.symbolRuns, x.symbols)
					require.NoError(t, err)
					require.True(t, bytes.Equal(plain, body), c.Kernel())
					require.Equal(t, want, got, c.Kernel())
				}
				require.ErrorIs(t, c.Decode(make([]byte, len(x.src)), &got, x.runs, body), fault.Invalid)
				states[i].Reset()
				sources[i] = rans.Source{State: &states[i], Runs: x.runs, Src: x.src}
			}
			err := c.EncodePair(&sources[0], &sources[1])
			if !r.ok || !other.ok {
				require.ErrorIs(t, err, fault.Invalid, c.Kernel())
				continue
			}
			require.NoError(t, err, c.Kernel())
			for i, x := range []*recodable{&r, &other} {
				var want rans.State
				want.Reset()
				plain, err := reference.Encode(nil, &want, x.symbolRuns, x.symbols)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plain, sources[i].Dst), c.Kernel())
				require.Equal(t, want, states[i], c.Kernel())
			}
		}
	})
}
