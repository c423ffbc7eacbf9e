package codec

import (
	"strconv"

	"github.com/larderkv/larder/codec/plan"
)

// Levels of quality: each has three times the step of the one before.
const (
	L0 = 0
	L1 = 1
	L2 = 2
	L3 = 3
)

// Mode is how a field is coded.
type Mode uint8

// The modes that a caller asks for; a unit that cannot be coded so falls back
// to the next better one.
const (
	Raw      Mode = 1
	Lossless Mode = 2
	Plain    Mode = 3
	// Calibrated wants Params.Calibration.
	Calibrated Mode = 4
)

var modeNames = [...]string{"", "raw", "lossless", "plain", "calibrated"}

// ParseMode is the reverse of String.
func ParseMode(name string) (Mode, error) {
	for i, n := range modeNames {
		if i > 0 && n == name {
			return Mode(i), nil
		}
	}
	return 0, invalid("mode", "unknown mode").With(name, "raw, lossless, plain, calibrated")
}

func (m Mode) String() string {
	if m >= Raw && m <= Calibrated {
		return modeNames[m]
	}
	return "mode(" + strconv.Itoa(int(m)) + ")"
}

// FieldParams says how one field of a Shape is coded.
type FieldParams struct {
	Mode Mode
	// Steps, for Plain: the step of level 0 in units of the unit's rms
	// deviation from its channel means. One value for all layers, or one for
	// each; level L has the step 3^L times this.
	Steps []float32
}

// DefaultStep is the step of level 0 for a kind, such that L2 is about as close
// to the exact model as CacheGen is, and L1 is near-lossless by the measure of
// bench/RESULTS.md. Keys need finer steps than values.
func DefaultStep(k Kind) float32 {
	if k == V || k == Latent {
		return 0.09
	}
	return 0.05
}

// Params says how an object is coded.
type Params struct {
	// Finest and Coarsest are the levels that the object holds, with all
	// between. Only Plain and Calibrated have more than one; a reader of any level between
	// them fetches a prefix.
	Finest, Coarsest int
	// Fields has one entry for each field of the Shape.
	Fields []FieldParams
	// Sinks is the number of leading tokens that Plain keeps exactly. Models
	// park attention on the very first tokens of a prompt: use it for its
	// first chunk, 0 for others.
	Sinks int
	// Plan keeps some tokens, heads or layers at a coarser level than Finest.
	// nil keeps everything at Finest.
	Plan plan.Map
	// Calibration is what Calibrated fields are coded by, else nil. The units of
	// Plan are then those of joined heads.
	Calibration *Calibration
}

// MaxSinks bounds Params.Sinks.
const MaxSinks = 1024

// Steps of a unit's rms beyond these cannot be meant.
const minStep, maxStep = 1e-4, 64

func (p *Params) validate(s *Shape) error {
	if p.Finest < L0 || p.Coarsest > L3 || p.Finest > p.Coarsest {
		return invalid("levels", "not 0 <= finest <= coarsest <= 3").With(strconv.Itoa(p.Finest)+".."+strconv.Itoa(p.Coarsest), nil)
	}
	if p.Sinks < 0 || p.Sinks > MaxSinks {
		return invalid("sinks", "out of range").With(p.Sinks, MaxSinks)
	}
	if len(p.Fields) != len(s.Fields) {
		return invalid("fields", "number differs from the shape's").With(len(p.Fields), len(s.Fields))
	}
	for i, f := range p.Fields {
		name := "fields[" + strconv.Itoa(i) + "]"
		if f.Mode < Raw || f.Mode > Calibrated {
			return invalid(name, "unknown mode").With(f.Mode, nil)
		}
		if s.Fields[i].Kind == Opaque && f.Mode >= Plain {
			return invalid(name, "opaque bytes cannot be quantized")
		}
		if f.Mode != Plain {
			continue
		}
		if len(f.Steps) != 1 && len(f.Steps) != s.Layers {
			return invalid(name+".steps", "neither one nor one for each layer").With(len(f.Steps), s.Layers)
		}
		for _, v := range f.Steps {
			if !(v >= minStep && v <= maxStep) {
				return invalid(name+".steps", "out of range").With(v, "1e-4..64")
			}
		}
	}
	if p.Plan != nil {
		return p.Plan.Validate(s.Units(), s.Tokens, uint8(p.Finest), uint8(p.Coarsest))
	}
	return nil
}

func (f *FieldParams) step(layer int) float32 {
	if len(f.Steps) == 1 {
		return f.Steps[0]
	}
	return f.Steps[layer]
}
