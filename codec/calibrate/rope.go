package calibrate

import (
	"encoding/json"
	"math"

	"github.com/larderkv/larder/api/fault"
)

// Rope is how the position turns the keys of a model.
type Rope struct {
	// Turn has the angle of each pair at position 1, in radians.
	Turn []float64
	// Positions that the model was made for; 0 if it does not say.
	Positions int
}

// modelConfig is what config.json of a model says about it, in the names of the
// transformers library before and after its version 5.
type modelConfig struct {
	HeadDim    int           `json:"head_dim"`
	Hidden     int           `json:"hidden_size"`
	Heads      int           `json:"num_attention_heads"`
	Positions  int           `json:"max_position_embeddings"`
	Theta      float64       `json:"rope_theta"`
	Partial    float64       `json:"partial_rotary_factor"`
	Parameters *ropeSettings `json:"rope_parameters"`
	Scaling    *ropeSettings `json:"rope_scaling"`
}

type ropeSettings struct {
	Type     string  `json:"rope_type"`
	Old      string  `json:"type"`
	Theta    float64 `json:"rope_theta"`
	Partial  float64 `json:"partial_rotary_factor"`
	Factor   float64 `json:"factor"`
	Low      float64 `json:"low_freq_factor"`
	High     float64 `json:"high_freq_factor"`
	Original float64 `json:"original_max_position_embeddings"`
}

// ParseRope reads a model's config.json. Invalid: it is none, or its RoPE kind is
// not default, linear or llama3; such a cache is coded plain.
func ParseRope(config []byte) (*Rope, error) {
	var c modelConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "config", "not a model's config.json")
	}
	r := ropeSettings{}
	for _, p := range []*ropeSettings{c.Scaling, c.Parameters} {
		if p != nil {
			r = *p
		}
	}
	kind := r.Type
	if kind == "" {
		kind = r.Old
	}
	theta := firstOf(r.Theta, c.Theta)
	dims := c.HeadDim
	if dims == 0 && c.Heads > 0 {
		dims = c.Hidden / c.Heads
	}
	dims = int(float64(dims) * firstOf(r.Partial, c.Partial, 1))
	if theta <= 1 || dims < 2 || dims%2 != 0 {
		return nil, fault.New(fault.Invalid, "config.rope_theta", "without it, or without head_dim, nothing is known of the rotation").With(theta, dims)
	}
	out := &Rope{Turn: make([]float64, dims/2), Positions: c.Positions}
	for i := range out.Turn {
		a := math.Pow(theta, -2*float64(i)/float64(dims))
		switch kind {
		case "", "default":
		case "linear":
			a /= r.Factor
		case "llama3":
			a = r.llama3(a)
		default:
			return nil, fault.New(fault.Invalid, "config.rope_type", "not implemented; code such a cache plain").With(kind, "default, linear, llama3")
		}
		if !(a > 0 && a <= 1) {
			return nil, fault.New(fault.Invalid, "config.rope", "impossible numbers").With(a, 1)
		}
		out.Turn[i] = a
	}
	return out, nil
}

// llama3 slows slow turns down by the factor, keeps fast ones, and goes from one
// to the other between.
func (r *ropeSettings) llama3(a float64) float64 {
	turns := r.Original * a / (2 * math.Pi) // within the original context
	if turns >= r.High {
		return a
	}
	share := min(max((turns-r.Low)/(r.High-r.Low), 0), 1)
	return (1-share)*a/r.Factor + share*a
}

// firstOf returns the first that is not 0.
func firstOf(list ...float64) float64 {
	for _, v := range list {
		if v != 0 {
			return v
		}
	}
	return 0
}
