package coded

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/calibrate"
)

// Bases is what a pool asks for bases.
type Bases interface {
	// Find a basis by its name; nil: it is not here.
	Find(basis.ID) *basis.Basis
	// Of a model, by its weights: what its KV is coded by; nil: nothing.
	Of(weights [32]byte) *basis.Basis
	// Bundles says whether there are any of bundles.
	Bundles() bool
}

// NoBases has none.
type NoBases struct{}

// Find implements Bases.
func (NoBases) Find(basis.ID) *basis.Basis { return nil }

// Of implements Bases.
func (NoBases) Of([32]byte) *basis.Basis { return nil }

// Bundles implements Bases.
func (NoBases) Bundles() bool { return false }

// Fallback is why what should be calibrated is coded plain, at the same level.
type Fallback string

const (
	// NoFallback: it is calibrated.
	NoFallback Fallback = ""
	// NoBasis: the operator names none for the model, or it is not here.
	NoBasis Fallback = "no_basis"
	// OtherShape: the basis has other heads, layers or fields.
	OtherShape Fallback = "shape"
	// OtherRope: the basis turns keys otherwise than the model, or it is not known
	// how the model does.
	OtherRope Fallback = "rope"
	// Position: the chunk lies beyond the basis's positions.
	Position Fallback = "position"
	// Apart: a bundle's parts came one by one.
	Apart Fallback = "apart"
)

// calibration is how a part is coded by a basis.
type calibration struct {
	basis     *basis.Basis
	firstHead int
	// tokens of a chunk.
	tokens int
	// turns: the position turns its keys.
	turns bool
}

// calibrationOf says whether b fits a part of a namespace, of which s is the
// shape.
func calibrationOf(d *namespace.Descriptor, p *namespace.PartSpec, s *codec.Shape, b *basis.Basis) (*calibration, Fallback) {
	if b == nil {
		return nil, NoBasis
	}
	g := &d.Groups[p.Group]
	last := int(p.Layers[len(p.Layers)-1])
	switch {
	case g.TokensPerEntry != 1, // positions would be those of entries
		b.Heads != int(g.KVHeads),
		int(p.Heads)%b.Joined != 0 && b.Unit == basis.Part,
		last-s.FirstLayer+1 != s.Layers, // an object's layers have no gaps
		s.FirstLayer < b.FirstLayer, last >= b.FirstLayer+b.Layers,
		len(s.Fields) != len(b.Fields):
		return nil, OtherShape
	}
	turns := false
	for _, f := range s.Fields {
		k := b.Field(uint8(f.Kind))
		if k < 0 || b.Fields[k].Dims != f.Dims {
			return nil, OtherShape
		}
		turns = turns || b.Turns(k)
	}
	if turns && !turnsAs(d, b) {
		return nil, OtherRope
	}
	return &calibration{b, int(p.FirstHead), int(d.ChunkTokens), turns}, NoFallback
}

// by is the basis, nil where there is no calibration.
func (c *calibration) by() *basis.Basis {
	if c == nil {
		return nil
	}
	return c.basis
}

// at says whether the basis reaches to a chunk, and from which position on.
func (c *calibration) at(ordinal uint32) (position int, ok bool) {
	p := int64(ordinal) * int64(c.tokens)
	return int(p), p+int64(c.tokens) <= math.MaxInt32 && (!c.turns || p+int64(c.tokens) <= int64(c.basis.Rope.Positions))
}

// reaches says so without the position.
func (c *calibration) reaches(ordinal uint32) bool {
	_, ok := c.at(ordinal)
	return ok
}

// params of an exact part at a level.
func (c *calibration) params(s *codec.Shape, level, position int) codec.Params {
	p := codec.Params{
		Finest: level, Coarsest: level, Fields: make([]codec.FieldParams, len(s.Fields)),
		Calibration: &codec.Calibration{Basis: c.basis, Position: position, FirstHead: c.firstHead},
	}
	for i := range p.Fields {
		p.Fields[i].Mode = codec.Calibrated
	}
	return p
}

// turnsAs says whether the namespace's model turns keys as the basis does, which
// keeps the angles as tables only.
func turnsAs(d *namespace.Descriptor, b *basis.Basis) bool {
	rope, err := calibrate.ParseRope(ropeConfig(d))
	if err != nil || 2*len(rope.Turn) != b.Rope.Dims {
		return false
	}
	cs := make([]float32, b.Rope.Dims)
	b.Turn(cs, min(1, b.Rope.Positions-1))
	for i, want := range rope.Turn {
		got := math.Atan2(float64(cs[2*i+1]), float64(cs[2*i]))
		if math.Abs(got-want) > 1e-4*want {
			return false
		}
	}
	return b.Rope.Positions > 1
}

// ropeConfig is what a namespace says about RoPE in the words of a config.json.
func ropeConfig(d *namespace.Descriptor) []byte {
	config, rope := map[string]any{}, map[string]any{}
	for _, f := range d.Config {
		name, inRope := strings.CutPrefix(f.Name, "rope.")
		to := config
		if inRope {
			to = rope
			switch {
			case name == "kind":
				name = "rope_type"
			case name == "theta":
				name = "rope_theta"
			case name == "type", strings.HasPrefix(name, "top_"):
				return nil // the model's configuration contradicts itself
			}
		}
		if v, err := strconv.ParseFloat(f.Value, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
			to[name] = v
		} else if inRope && name == "rope_type" {
			to[name] = f.Value
		}
	}
	config["rope_parameters"] = rope
	b, _ := json.Marshal(config) // numbers and one text
	return b
}
