package basis

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/larderkv/larder/api/fault"
	"github.com/minio/crc64nvme"
)

// Sizes of FORMAT.md.
const (
	magic     = 0x42564b4c // "LKVB"
	version   = 1
	fixedSize = 32
	fieldSize = 8
	// lowRows positions have a row of their own; every lowRows-th has one in the
	// high table.
	lowRows = 256
)

// Bounds of the numbers of a basis: with them no object decodes to anything that
// is not finite.
const (
	maxEntry = 2
	maxMean  = 1 << 96
	// exponents of steps
	minStepExp, maxStepExp = -80, 56
)

// ID names a basis: the SHA-256 of its bytes.
type ID [sha256.Size]byte

func (i ID) String() string { return hex.EncodeToString(i[:]) }

// Transform is that of one unit: n components.
type Transform struct {
	// Mean of each element, in the order of heads, then dims; keys turned back.
	Mean []float32
	// Steps of level 0, bf16, and the class of each component.
	Steps   []uint16
	Classes []uint8
	// Matrix has a row of n elements for each component.
	Matrix []float32
}

// Basis is a parsed basis.
type Basis struct {
	Shape
	id         ID
	low, high  []float32 // rows of Rope.Dims: cosine and sine of each pair
	transforms []Transform
}

// ID returns the name.
func (b *Basis) ID() ID { return b.id }

// Memory is about how many bytes b holds.
func (b *Basis) Memory() int64 {
	n := 4 * int64(len(b.low)+len(b.high))
	for i := range b.transforms {
		t := &b.transforms[i]
		n += 4*int64(len(t.Mean)+len(t.Matrix)) + 2*int64(len(t.Steps)) + int64(len(t.Classes))
	}
	return n
}

// Products of numbers that all units of a token take, each way; decoding leaves
// out components that are 0.
func (s *Shape) Products() (n int64) {
	for i := range s.Fields {
		n += int64(s.Layers*s.Blocks()) * int64(s.Size(i)) * int64(s.Size(i))
	}
	return n
}

// Field returns the number of the field of a kind, -1 if there is none.
func (b *Basis) Field(kind uint8) int {
	for i, f := range b.Fields {
		if f.Kind == kind {
			return i
		}
	}
	return -1
}

// Transform returns that of a unit. layer counts from FirstLayer, block is head /
// Joined.
func (b *Basis) Transform(layer, field, block int) *Transform {
	return &b.transforms[(layer*len(b.Fields)+field)*b.Blocks()+block]
}

// Append writes a basis. turn has the angle of each pair at position 1, in
// radians: Rope.Dims / 2 of them. transforms are those of layer, field, block;
// their matrices are rounded to bf16. Invalid: they do not fit the shape, or a
// number is out of bounds.
func Append(dst []byte, s *Shape, turn []float64, transforms []Transform) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return dst, err
	}
	if len(turn) != s.Rope.Dims/2 || len(transforms) != s.Units() {
		return dst, invalid("transforms", "number does not fit the shape").With(len(transforms), s.Units())
	}
	le, at := binary.LittleEndian, len(dst)
	dst = le.AppendUint32(dst, magic)
	dst = append(dst, version, byte(s.Unit), byte(len(s.Fields)), byte(s.Rope.Pairing))
	for _, v := range []int{s.FirstLayer, s.Layers, s.Heads, s.Joined, s.Rope.Dims, 0} {
		dst = le.AppendUint16(dst, uint16(v))
	}
	dst = le.AppendUint32(dst, uint32(s.Rope.Positions))
	dst = le.AppendUint64(dst, uint64(s.bytes()))
	for _, f := range s.Fields {
		dst = append(dst, f.Kind, byte(f.Classes))
		dst = le.AppendUint16(dst, uint16(f.Dims))
		dst = append(dst, 0, 0, 0, 0)
	}
	if s.Rope.Pairing != None {
		dst = appendTurns(dst, turn, lowRows, 1)
		dst = appendTurns(dst, turn, s.highRows(), lowRows)
	}
	for i := range transforms {
		_, field, _ := s.UnitOf(i)
		t, n := &transforms[i], s.Size(field)
		if len(t.Mean) != n || len(t.Steps) != n || len(t.Classes) != n || len(t.Matrix) != n*n {
			return dst[:at], invalid("transforms", "transform %d has another size", i).With(len(t.Mean), n)
		}
		for _, v := range t.Mean {
			dst = le.AppendUint32(dst, math.Float32bits(v+0)) // no negative zero
		}
		for _, v := range t.Steps {
			dst = le.AppendUint16(dst, v)
		}
		dst = append(dst, t.Classes...)
		for _, v := range t.Matrix {
			dst = le.AppendUint16(dst, nearest(v))
		}
	}
	dst = le.AppendUint64(dst, crc64nvme.Checksum(dst[at:]))
	if _, err := Parse(dst[at:]); err != nil {
		return dst[:at], fault.Wrap(fault.Invalid, err, "basis", "impossible numbers")
	}
	return dst, nil
}

// Parse reads a basis. What it keeps is at most twice as long as b, which it does
// not keep. Miss: another format or version. Corrupt: no encoder wrote it.
func Parse(b []byte) (*Basis, error) {
	le := binary.LittleEndian
	if len(b) < fixedSize+fieldSize+8 {
		return nil, corrupt("header", "too short").With(len(b), fixedSize)
	}
	if le.Uint32(b) != magic {
		return nil, fault.New(fault.Miss, "basis.magic", "not a basis")
	}
	if b[4] != version {
		return nil, fault.New(fault.Miss, "basis.version", "unknown version").With(b[4], version)
	}
	number := func(at int) int { return int(le.Uint16(b[at:])) }
	s := Shape{Unit: Unit(b[5]), FirstLayer: number(8), Layers: number(10), Heads: number(12), Joined: number(14)}
	s.Rope = Rope{Pairing(b[7]), number(16), int(min(le.Uint32(b[20:]), MaxPositions+1))}
	fields := int(b[6])
	if fields < 1 || fields > MaxFields || len(b) < fixedSize+fields*fieldSize || number(18) != 0 {
		return nil, corrupt("fields", "number out of range").With(fields, MaxFields)
	}
	for i := range fields {
		at := fixedSize + i*fieldSize
		s.Fields = append(s.Fields, Field{Kind: b[at], Classes: int(b[at+1]), Dims: number(at + 2)})
		if le.Uint32(b[at+4:]) != 0 {
			return nil, corrupt("fields", "reserved bytes are not zero")
		}
	}
	if err := s.Validate(); err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "basis.shape", "impossible")
	}
	if n := s.bytes(); n != int64(len(b)) || le.Uint64(b[24:]) != uint64(n) {
		return nil, corrupt("length", "is not what the shape makes").With(len(b), n)
	}
	if crc64nvme.Checksum(b[:len(b)-8]) != le.Uint64(b[len(b)-8:]) {
		return nil, corrupt("checksum", "does not match")
	}
	basis := &Basis{Shape: s, id: sha256.Sum256(b)}
	rest := b[fixedSize+fields*fieldSize : len(b)-8]
	if s.Rope.Pairing != None {
		var err error
		if basis.low, rest, err = readFloats(rest, s.Rope.Dims*lowRows, maxEntry); err != nil {
			return nil, err
		}
		if basis.high, rest, err = readFloats(rest, s.Rope.Dims*s.highRows(), maxEntry); err != nil {
			return nil, err
		}
	}
	basis.transforms = make([]Transform, s.Units())
	for i := range basis.transforms {
		_, field, _ := s.UnitOf(i)
		n := int(transformBytes(s.Size(field)))
		if err := basis.transforms[i].read(rest[:n], s.Size(field), s.Fields[field].Classes); err != nil {
			return nil, fault.Wrap(fault.Corrupt, err, "basis.transform", "transform %d", i)
		}
		rest = rest[n:]
	}
	return basis, nil
}

// read sets t from exactly its bytes.
func (t *Transform) read(b []byte, n, classes int) (err error) {
	if t.Mean, b, err = readFloats(b, n, maxMean); err != nil {
		return err
	}
	t.Steps = make([]uint16, n)
	for i := range t.Steps {
		t.Steps[i] = binary.LittleEndian.Uint16(b[2*i:])
		if e := int(t.Steps[i]>>7) - 127; e < minStepExp || e >= maxStepExp { // negative ones have a larger exponent
			return corrupt("steps", "step %d is out of range", i).With(fromBF16(t.Steps[i]), nil)
		}
	}
	t.Classes = append([]uint8(nil), b[2*n:3*n]...)
	for i, c := range t.Classes {
		if int(c) >= classes {
			return corrupt("classes", "component %d has an unknown class", i).With(c, classes-1)
		}
	}
	b = b[3*n:]
	t.Matrix = make([]float32, n*n)
	for i := range t.Matrix {
		v := fromBF16(binary.LittleEndian.Uint16(b[2*i:]))
		if !(v >= -maxEntry && v <= maxEntry) {
			return corrupt("matrix", "entry %d is out of range", i).With(v, maxEntry)
		}
		t.Matrix[i] = v
	}
	return nil
}

// readFloats reads n numbers from the front of b, none larger than limit, none a
// negative zero.
func readFloats(b []byte, n int, limit float32) (list []float32, rest []byte, err error) {
	list = make([]float32, n)
	for i := range list {
		bits := binary.LittleEndian.Uint32(b[4*i:])
		v := math.Float32frombits(bits)
		if !(v >= -limit && v <= limit) || bits == 1<<31 {
			return nil, nil, corrupt("number", "out of range").With(v, limit)
		}
		list[i] = v
	}
	return list, b[4*n:], nil
}

func fromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// nearest rounds to bf16, ties to even; Parse refuses what is not finite.
func nearest(v float32) uint16 {
	b := math.Float32bits(v)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
