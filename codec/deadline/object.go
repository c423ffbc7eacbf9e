package deadline

import (
	"math"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec"
)

// Bounds of a request.
const (
	MaxPasses = codec.L3 + 1
	MaxRanges = 1 << 20
)

// Object is one coded object: the chunk of a prompt, or a head group's part of
// it, as its directory describes it.
type Object struct {
	Tokens int
	// Bytes of each layer in each pass, [pass][layer]: pass 0 is the coarsest
	// level, each next one refines it by one level (codec/FORMAT.md).
	Bytes [][]int64
}

// Of reads an object's directory. A Range of the object is then where
// h.Range(r.Pass, r.Layer, r.Layer+1) says; ranges of neighbouring layers in one
// pass are neighbours.
func Of(h *codec.Header) Object {
	o := Object{Tokens: h.Tokens, Bytes: make([][]int64, h.Coarsest-h.Finest+1)}
	for p := range o.Bytes {
		o.Bytes[p] = make([]int64, h.Layers)
		for l := range o.Bytes[p] {
			_, o.Bytes[p][l] = h.Range(p, l, l+1)
		}
	}
	return o
}

// Losses says what a level costs in quality, [pass][layer]: the mean divergence
// (KL, in nats for each token) of a continuation when this layer of all tokens is
// as good as that pass makes it, and everything else exact. They are measured
// for a model and a way of coding (bench/py/codec_layers.py). They are summed
// over layers; a token has its share. A pass that makes a layer worse counts as
// one that changes nothing.
type Losses [][]float64

// gain is what a layer of all tokens gains from a pass.
func (l Losses) gain(pass, layer int) float64 {
	return max(0, l[pass-1][layer]-l[pass][layer])
}

// Recompute says what computing a suffix takes instead of fetching it.
type Recompute struct {
	Cost Prefill
	// First is the position of the first object's first token in the prompt.
	First int
	// Beside: computing begins as soon as Keep is known and goes on beside
	// fetching. Else it begins when fetching ends, since it reads what was
	// fetched.
	Beside bool
	// Price is what a second of computing must gain, in the unit of Losses; 0
	// (default) takes computing for free, as CacheGen does. With a high one a
	// suffix is computed only where fetching it would be late.
	Price float64
}

// Options is a request.
type Options struct {
	// Objects in the order of the prompt, all of the same layers and passes.
	Objects []Object
	Losses  Losses
	// Deadline, on the caller's clock, is when everything is to be there. The
	// caller takes off what it does afterwards: decoding, the rest of the prompt.
	Deadline time.Duration
	// LayersFirst: of the coarse level, a layer of all objects comes before the
	// next layer, for an engine that begins with the first ones. Else, and that
	// wastes less when a suffix has to be computed after all, an object comes
	// before the next one.
	LayersFirst bool
	// Recompute is nil if nothing can be computed: then the coarse level of all
	// objects is fetched however long it takes.
	Recompute *Recompute
}

func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, field, format, args...)
}

func (o *Options) validate() error {
	if len(o.Objects) == 0 {
		return invalid("objects", "there are none")
	}
	passes := len(o.Losses)
	if passes < 1 || passes > MaxPasses {
		return invalid("losses", "number of passes").With(passes, MaxPasses)
	}
	layers := len(o.Losses[0])
	if layers < 1 || len(o.Objects) > MaxRanges/(passes*layers) {
		return invalid("objects", "number of ranges").With(len(o.Objects)*passes*layers, MaxRanges)
	}
	for _, row := range o.Losses {
		if len(row) != layers {
			return invalid("losses", "number of layers").With(len(row), layers)
		}
		for _, v := range row {
			if !(v >= 0) || math.IsInf(v, 1) {
				return invalid("losses", "not a finite divergence").With(v, nil)
			}
		}
	}
	for i := range o.Objects {
		if err := o.Objects[i].validate(passes, layers); err != nil {
			return fault.Wrap(fault.Invalid, err, "objects", "object %d", i)
		}
	}
	if r := o.Recompute; r != nil {
		if r.First < 0 || !(r.Price >= 0) {
			return invalid("recompute", "negative position or price").With(r.First, nil)
		}
		return r.Cost.validate()
	}
	return nil
}

func (o *Object) validate(passes, layers int) error {
	if o.Tokens < 1 || o.Tokens > 1<<24 {
		return invalid("tokens", "out of range").With(o.Tokens, 1<<24)
	}
	if len(o.Bytes) != passes {
		return invalid("bytes", "number of passes").With(len(o.Bytes), passes)
	}
	for _, row := range o.Bytes {
		if len(row) != layers {
			return invalid("bytes", "number of layers").With(len(row), layers)
		}
		for _, n := range row {
			if n < 0 || n > 1<<40 {
				return invalid("bytes", "out of range").With(n, int64(1)<<40)
			}
		}
	}
	return nil
}
