package entropy

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/larderkv/larder/codec/rans"
)

const (
	heads   = 64
	blocks  = 4 // of 64 tokens
	classes = 8
	steps   = 16 // channels of a class, each one step of a block
	symbols = blocks * classes * steps * rans.Lanes
	middle  = 31
)

// Head is the symbols of one head and what codes them.
type Head struct {
	Symbols []byte
	Runs    []rans.Run
}

// Heads returns the symbols of one part, the same for one seed, and their mean
// entropy in bits, class by class.
func Heads(seed uint64) ([]Head, float64, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	all := make([]Head, heads)
	var hist [classes][rans.Slots]uint32
	for h := range all {
		b := make([]byte, 0, symbols)
		for range blocks {
			for class := range classes {
				for range steps * rans.Lanes {
					s := symbol(rng, class)
					hist[class][s]++
					b = append(b, s)
				}
			}
		}
		all[h].Symbols = b
	}
	tables := new([classes]rans.Table)
	bits := 0.0
	for class := range hist {
		var freq [rans.Slots]uint16
		rans.Normalize(&freq, &hist[class])
		if err := tables[class].Build(&freq); err != nil {
			return nil, 0, fmt.Errorf("table of class %d: %w", class, err)
		}
		bits += entropy(&hist[class]) / classes
	}
	for h := range all {
		for range blocks {
			for class := range classes {
				all[h].Runs = append(all[h].Runs, rans.Run{Table: &tables[class], Steps: steps})
			}
		}
	}
	return all, bits, nil
}

// symbol: classes alternate between the two shapes and grow by 1.35 from 0.45
// steps to 3.7.
func symbol(rng *rand.Rand, class int) byte {
	sigma := 0.45 * math.Pow(1.35, float64(class))
	x := rng.NormFloat64()
	if class%2 == 1 {
		x = rng.ExpFloat64() / math.Sqrt2
		if rng.Uint32()&1 == 0 {
			x = -x
		}
	}
	limit := math.Ceil(4.5 * sigma)
	return byte(middle + int(max(-limit, min(limit, math.Round(x*sigma)))))
}

func entropy(hist *[rans.Slots]uint32) float64 {
	n, h := 0.0, 0.0
	for _, c := range hist {
		n += float64(c)
	}
	for _, c := range hist {
		if c > 0 {
			h -= float64(c) / n * math.Log2(float64(c)/n)
		}
	}
	return h
}
