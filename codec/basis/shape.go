package basis

import "github.com/larderkv/larder/api/fault"

// Unit says what is coded together.
type Unit uint8

// The units; the values are those of FORMAT.md.
const (
	// Part: the heads of one head group.
	Part Unit = 1
	// Bundle: all heads of the model.
	Bundle Unit = 2
)

func (u Unit) String() string {
	switch u {
	case Part:
		return "part"
	case Bundle:
		return "bundle"
	}
	return "unknown unit"
}

// ParseUnit is the reverse of String.
func ParseUnit(name string) (Unit, error) {
	for _, u := range []Unit{Part, Bundle} {
		if u.String() == name {
			return u, nil
		}
	}
	return 0, fault.New(fault.Invalid, "unit", "unknown unit").With(name, "part, bundle")
}

// KindK is the kind of a field that the rotation applies to.
const KindK = 1

// Field is one component of a token's entry.
type Field struct {
	// Kind is the number of codec/FORMAT.md: 1 K, 2 V, 3 latent.
	Kind uint8
	// Classes of its components, 1..MaxClasses.
	Classes int
	// Dims of one head.
	Dims int
}

// Pairing says which dims of a head the position turns together.
type Pairing uint8

// The pairings; the values are those of FORMAT.md.
const (
	None       Pairing = 0
	Halves     Pairing = 1 // i with i + dims/2: Llama, Qwen, Mistral
	Neighbours Pairing = 2 // 2i with 2i + 1: GPT-J
)

// Rope says how the position turns keys.
type Rope struct {
	Pairing Pairing
	// Dims at the front of each head that turn: even; 0 for None.
	Dims int
	// Positions that the tables cover; 0 for None.
	Positions int
}

// Shape describes the cache that a basis is for.
type Shape struct {
	Unit Unit
	// FirstLayer is the engine's number of the first layer.
	FirstLayer, Layers int
	// Heads of the model; Joined of them are one unit.
	Heads, Joined int
	Fields        []Field
	Rope          Rope
}

// Limits of a Shape.
const (
	MaxClasses   = 10
	MaxFields    = 8
	MaxLayers    = 1024
	MaxHeads     = 1024
	MaxSize      = 1 << 12 // components of a unit
	MaxPositions = 1 << 22
	MaxBytes     = 1 << 33
)

// Size is the number of components of a unit of a field.
func (s *Shape) Size(field int) int { return s.Joined * s.Fields[field].Dims }

// Blocks is the number of units of a field in a layer.
func (s *Shape) Blocks() int { return s.Heads / s.Joined }

// Units is the number of all units: layers x fields x blocks.
func (s *Shape) Units() int { return s.Layers * len(s.Fields) * s.Blocks() }

// UnitOf says which one comes i-th: layer after layer, field after field, block
// after block.
func (s *Shape) UnitOf(i int) (layer, field, block int) {
	return i / s.Blocks() / len(s.Fields), i / s.Blocks() % len(s.Fields), i % s.Blocks()
}

// Turns reports whether the position turns a field.
func (s *Shape) Turns(field int) bool {
	return s.Rope.Pairing != None && s.Fields[field].Kind == KindK
}

// Validate says whether the shape is within the limits; else Invalid.
func (s *Shape) Validate() error {
	for _, c := range []struct {
		name            string
		value, low, top int
	}{
		{"unit", int(s.Unit), int(Part), int(Bundle)},
		{"first_layer", s.FirstLayer, 0, 1<<16 - 1},
		{"layers", s.Layers, 1, MaxLayers},
		{"heads", s.Heads, 1, MaxHeads},
		{"joined", s.Joined, 1, s.Heads},
		{"fields", len(s.Fields), 1, MaxFields},
		{"rope.pairing", int(s.Rope.Pairing), int(None), int(Neighbours)},
		{"rope.positions", s.Rope.Positions, 0, MaxPositions},
	} {
		if c.value < c.low || c.value > c.top {
			return invalid(c.name, "out of range").With(c.value, c.top)
		}
	}
	if s.Heads%s.Joined != 0 || s.Unit == Bundle && s.Joined != s.Heads {
		return invalid("joined", "does not divide the heads, or is not all of a bundle's").With(s.Joined, s.Heads)
	}
	var seen [256]bool
	for i, f := range s.Fields {
		if f.Kind < KindK || f.Kind > 3 || seen[f.Kind] {
			return invalid("fields", "field %d has a kind that has no transform, or twice", i).With(f.Kind, 3)
		}
		seen[f.Kind] = true
		if f.Classes < 1 || f.Classes > MaxClasses {
			return invalid("fields", "classes of field %d", i).With(f.Classes, MaxClasses)
		}
		if f.Dims < 1 || f.Dims*s.Joined > MaxSize {
			return invalid("fields", "components of a unit of field %d", i).With(f.Dims*s.Joined, MaxSize)
		}
		if s.Turns(i) && s.Rope.Dims > f.Dims {
			return invalid("rope.dims", "more than the keys have").With(s.Rope.Dims, f.Dims)
		}
	}
	none := s.Rope.Pairing == None
	if s.Rope.Dims < 0 || s.Rope.Dims > MaxSize || s.Rope.Dims%2 != 0 || none != (s.Rope.Dims == 0) || none != (s.Rope.Positions == 0) {
		return invalid("rope", "dims and positions do not fit the pairing").With(s.Rope.Dims, s.Rope.Positions)
	}
	if n := s.bytes(); n > MaxBytes {
		return invalid("shape", "too many bytes").With(n, int64(MaxBytes))
	}
	return nil
}

// bytes is the length of the encoded basis.
func (s *Shape) bytes() int64 {
	n := int64(fixedSize + fieldSize*len(s.Fields) + 8)
	n += 4 * int64(s.Rope.Dims) * int64(lowRows+s.highRows())
	for i := range s.Fields {
		n += int64(s.Layers*s.Blocks()) * transformBytes(s.Size(i))
	}
	return n
}

func (s *Shape) highRows() int { return (s.Rope.Positions + lowRows - 1) / lowRows }

// transformBytes: means, steps, classes, matrix.
func transformBytes(n int) int64 { return int64(n) * int64(4+2+1+2*n) }

func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "basis."+field, format, args...)
}

func corrupt(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, "basis."+field, format, args...)
}
