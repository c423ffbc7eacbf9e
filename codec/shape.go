package codec

import "strconv"

// Kind says what a field of a token's entry is.
type Kind uint8

// The kinds; the values are those of FORMAT.md.
const (
	K      Kind = 1 // keys, rotated as the engine keeps them
	V      Kind = 2 // values
	Latent Kind = 3 // compressed KV, shared by all heads
	Rope   Kind = 4 // the rotated part beside a latent
	Opaque Kind = 5 // bytes that mean nothing here
)

var kindNames = [...]string{"", "k", "v", "latent", "rope", "opaque"}

func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// ParseKind is the reverse of String.
func ParseKind(name string) (Kind, error) {
	for i, n := range kindNames {
		if i > 0 && n == name {
			return Kind(i), nil
		}
	}
	return 0, invalid("kind", "unknown kind").With(name, "k, v, latent, rope, opaque")
}

// Field is one component of a token's entry: dims elements in a row.
type Field struct {
	Kind  Kind
	DType DType
	// Dims is the number of elements, 1..MaxDims.
	Dims int
}

func (f Field) bytes() int { return f.Dims * f.DType.Size() }

// Shape describes uncoded bytes: layer, head, token, then the fields packed,
// little-endian (canonical/1: {K, V}; a latent group: heads 1 and {Latent} or
// {Latent, Rope}).
type Shape struct {
	// FirstLayer is a label: the engine's number of the first layer.
	FirstLayer int
	Layers     int
	Heads      int
	Tokens     int
	Fields     []Field
}

// Limits of a Shape. They keep every size far from overflow.
const (
	MaxLayers    = 1024
	MaxHeads     = 1024
	MaxTokens    = 1 << 16
	MaxDims      = 1 << 13
	MaxFields    = 8
	MaxUnits     = 1 << 16
	MaxUnitBytes = 1 << 28 // uncoded
	MaxCells     = 1 << 30 // units x tokens
	MaxRawBytes  = 1 << 32
)

// Validate says whether the shape is within the limits; else Invalid.
func (s *Shape) Validate() error {
	for _, c := range []struct {
		name         string
		value, limit int
		low          int
	}{
		{"first_layer", s.FirstLayer, 1<<16 - 1, 0},
		{"layers", s.Layers, MaxLayers, 1},
		{"heads", s.Heads, MaxHeads, 1},
		{"tokens", s.Tokens, MaxTokens, 1},
		{"fields", len(s.Fields), MaxFields, 1},
	} {
		if c.value < c.low || c.value > c.limit {
			return invalid("shape."+c.name, "out of range").With(c.value, c.limit)
		}
	}
	for i, f := range s.Fields {
		name := "shape.fields[" + strconv.Itoa(i) + "]"
		if f.Kind < K || f.Kind > Opaque {
			return invalid(name, "unknown kind").With(f.Kind, nil)
		}
		if f.DType.Size() == 0 || f.DType == U8 && f.Kind != Opaque {
			return invalid(name, "data type does not fit the kind").With(f.DType, f.Kind)
		}
		if f.Dims < 1 || f.Dims > MaxDims {
			return invalid(name, "dims out of range").With(f.Dims, MaxDims)
		}
	}
	for i, f := range s.Fields {
		if n := s.Tokens * f.bytes(); n > MaxUnitBytes {
			return invalid("shape.fields["+strconv.Itoa(i)+"]", "too many bytes in a unit").With(n, MaxUnitBytes)
		}
	}
	if s.Units() > MaxUnits {
		return invalid("shape", "too many units (layers x fields x heads)").With(s.Units(), MaxUnits)
	}
	if s.Units()*s.Tokens > MaxCells {
		return invalid("shape", "too many tokens of units").With(s.Units()*s.Tokens, MaxCells)
	}
	if s.RawSize() > MaxRawBytes {
		return invalid("shape", "too many bytes").With(s.RawSize(), MaxRawBytes)
	}
	return nil
}

// Units is layers x fields x heads. A unit is coded by itself; its number is
// (layer * fields + field) * heads + head.
func (s *Shape) Units() int { return s.Layers * len(s.Fields) * s.Heads }

// RowSize is the bytes of one token of one head: all fields.
func (s *Shape) RowSize() int {
	n := 0
	for _, f := range s.Fields {
		n += f.bytes()
	}
	return n
}

// LayerSize is the uncoded bytes of a layer.
func (s *Shape) LayerSize() int { return s.Heads * s.Tokens * s.RowSize() }

// RawSize is the uncoded bytes of everything.
func (s *Shape) RawSize() int { return s.Layers * s.LayerSize() }

// Equal says whether both are of the same bytes.
func (s *Shape) Equal(o *Shape) bool {
	if s.FirstLayer != o.FirstLayer || s.Layers != o.Layers || s.Heads != o.Heads || s.Tokens != o.Tokens || len(s.Fields) != len(o.Fields) {
		return false
	}
	for i := range s.Fields {
		if s.Fields[i] != o.Fields[i] {
			return false
		}
	}
	return true
}

// unit names one unit and where its rows lie in the uncoded bytes.
type unit struct {
	index, layer, field, head int
	tokens, dims              int
	dtype                     DType
	offset, stride, width     int
}

func (s *Shape) unit(i int) unit {
	nf := len(s.Fields)
	u := unit{index: i, head: i % s.Heads, field: i / s.Heads % nf, layer: i / s.Heads / nf, tokens: s.Tokens}
	f := s.Fields[u.field]
	u.dims, u.dtype, u.width, u.stride = f.Dims, f.DType, f.bytes(), s.RowSize()
	u.offset = u.layer*s.LayerSize() + u.head*s.Tokens*u.stride
	for _, before := range s.Fields[:u.field] {
		u.offset += before.bytes()
	}
	return u
}

func (u *unit) row(raw []byte, token int) []byte {
	at := u.offset + token*u.stride
	return raw[at : at+u.width : at+u.width]
}
