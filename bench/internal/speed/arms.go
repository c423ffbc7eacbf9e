package speed

import (
	"context"
	"fmt"
	"time"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// armTime is how long one arm works at least.
const armTime = 60 * time.Millisecond

// variant is one way to code the objects.
type variant struct {
	name string
	coding.Way
}

// work is the objects of one variant with one kernel.
type work struct {
	*coding.Work
	bits float64 // per element, all in
}

// newWork encodes raw, each of shape s.
func newWork(kernel rans.Kernel, v *variant, s *codec.Shape, raw [][]byte) (*work, error) {
	var parts []coding.Part
	for _, b := range raw {
		parts = append(parts, coding.Part{Shape: s, Params: v.Params(s), Raw: b})
	}
	w, err := coding.New(kernel, parts, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	return &work{w, float64(w.Size()) * 8 / float64(len(raw)*len(raw[0])/2)}, nil
}

// arm measures f over the objects: uncoded bytes in GB/s.
func arm(name string, turns *coding.Turns, f func(i int) error) pairs.Arm {
	return pairs.Arm{Name: name, Run: func(context.Context) (pairs.Sample, error) {
		n, took, err := turns.Measure(f, armTime)
		if err != nil {
			return pairs.Sample{}, err
		}
		return pairs.Sample{Value: float64(n) / 1e9 / took.Seconds(), Bytes: n, CPU: took}, nil
	}}
}
