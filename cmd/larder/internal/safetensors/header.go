package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/larderkv/larder/api/fault"
)

// Limits of a file. A cache has some tensors for each layer: a hundredth of this.
const (
	MaxHeader  = 8 << 20 // bytes of JSON
	MaxTensors = 1 << 14
	MaxRank    = 8
)

// sizes of the elements of each dtype.
var sizes = map[string]int64{"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1}

// Tensor is one entry of the header.
type Tensor struct {
	Name, DType string
	// Shape, outermost first; empty for a scalar.
	Shape []int64
	// Offset of its bytes in the file.
	Offset int64
}

// Size is the length of its bytes; 0 if the dtype is unknown or they are too many.
func (t *Tensor) Size() int64 {
	n, _ := size(t.DType, t.Shape)
	return n
}

func size(dtype string, shape []int64) (n int64, ok bool) {
	n, ok = sizes[dtype]
	if !ok || len(shape) > MaxRank {
		return 0, false
	}
	// An empty one is empty whatever its other dims are; the reference multiplies
	// them first, and so must not overflow.
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "safetensors."+field, format, args...)
}

// Read returns the tensors of a file of so many bytes, in the order of their
// offsets. Invalid: it is no such file.
func Read(r io.ReaderAt, fileSize int64) ([]Tensor, error) {
	var length [8]byte
	if fileSize < int64(len(length)) {
		return nil, invalid("header", "the file ends before it").With(fileSize, len(length))
	}
	if err := readAt(r, length[:], 0); err != nil {
		return nil, err
	}
	// Compared unsigned: 2^63 and more must not become negative.
	n, limit := binary.LittleEndian.Uint64(length[:]), min(uint64(fileSize)-8, MaxHeader)
	if n > limit {
		return nil, invalid("header", "longer than the file, or than is read").With(n, limit)
	}
	header := make([]byte, n)
	if err := readAt(r, header, 8); err != nil {
		return nil, err
	}
	list, err := parse(header)
	if err != nil {
		return nil, err
	}
	// An empty one comes before what begins where it does.
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	at, tensors := int64(0), make([]Tensor, 0, len(list))
	for _, e := range list {
		if e.begin != at {
			return nil, invalid("data_offsets", "tensor %q does not begin where the one before it ends", e.name).With(e.begin, at)
		}
		want, ok := size(e.dtype, e.shape)
		if !ok {
			return nil, invalid("dtype", "tensor %q has a dtype or a shape that is not read", e.name).With(fmt.Sprint(e.dtype, " ", e.shape), "F32, BF16, F16, F8_E4M3, F8_E5M2, U8")
		}
		if e.end < e.begin || e.end-e.begin != want {
			return nil, invalid("data_offsets", "tensor %q has not the bytes that its dtype and shape say", e.name).With(e.end-e.begin, want)
		}
		at = e.end
		tensors = append(tensors, Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Offset: 8 + int64(n) + e.begin})
	}
	if rest := fileSize - 8 - int64(n); at != rest {
		return nil, invalid("data_offsets", "the last tensor does not end where the file ends").With(at, rest)
	}
	return tensors, nil
}

// readAt fills b, as ReadAt does, which may say EOF where it did.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	_, err := io.ReadFull(io.NewSectionReader(r, at, int64(len(b))), b)
	return err
}

// entry is a tensor as the header has it.
type entry struct {
	name, dtype string
	shape       []int64
	begin, end  int64
}

// parse reads the JSON of a header.
func parse(header []byte) ([]entry, error) {
	if !bytes.HasPrefix(header, []byte("{")) || !utf8.Valid(header) || !json.Valid(header) {
		return nil, invalid("header", "no JSON object in UTF-8")
	}
	p := parser{json.NewDecoder(bytes.NewReader(header))}
	p.UseNumber()
	var list []entry
	err := p.object("header", func(name string) error {
		if name == "__metadata__" {
			return p.object(name, func(string) error {
				_, err := next[string](p)
				return err
			})
		}
		if len(list) == MaxTensors {
			return invalid("header", "too many tensors").With(nil, MaxTensors)
		}
		e := entry{name: name, begin: -1}
		fields := 0
		err := p.object(name, func(field string) (err error) {
			fields++
			switch field {
			case "dtype":
				e.dtype, err = next[string](p)
			case "shape":
				e.shape, err = p.numbers(MaxRank)
			case "data_offsets":
				var offsets []int64
				if offsets, err = p.numbers(2); err == nil && len(offsets) != 2 {
					err = invalid(field, "not two numbers")
				}
				if err == nil {
					e.begin, e.end = offsets[0], offsets[1]
				}
			default:
				err = invalid("header", "tensor %q has an unknown field", name).With(field, "dtype, shape, data_offsets")
			}
			return err
		})
		if err == nil && fields != 3 {
			err = invalid("header", "tensor %q has not dtype, shape and data_offsets", name)
		}
		list = append(list, e)
		return err
	})
	return list, err
}

// parser takes tokens from what is known to be valid JSON. It does not descend
// into what it does not expect.
type parser struct{ *json.Decoder }

// next takes a token of type T.
func next[T any](p parser) (T, error) {
	t, err := p.Token()
	v, ok := t.(T)
	if err == nil && !ok {
		err = invalid("header", "an unexpected value").With(t, nil)
	}
	return v, err
}

func (p parser) delim(want json.Delim) error {
	if d, err := next[json.Delim](p); err != nil || d != want {
		return invalid("header", "an unexpected value").With(d, want)
	}
	return nil
}

// object takes one, and calls f for each of its names, which takes the value.
func (p parser) object(what string, f func(name string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.More() {
		name, err := next[string](p)
		if err != nil {
			return err
		}
		if seen[name] {
			return invalid("header", "%s has a name twice", what).With(name, nil)
		}
		seen[name] = true
		if err := f(name); err != nil {
			return err
		}
	}
	return p.delim('}')
}

// numbers takes a list of at most so many whole numbers that are not negative.
func (p parser) numbers(limit int) ([]int64, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	list := []int64{}
	for p.More() {
		v, err := next[json.Number](p)
		if err != nil {
			return nil, err
		}
		n, err := v.Int64()
		if err != nil || n < 0 || strings.HasPrefix(v.String(), "-") {
			return nil, invalid("header", "no whole number from 0 on").With(v, nil)
		}
		if len(list) == limit {
			return nil, invalid("header", "a list of too many numbers").With(nil, limit)
		}
		list = append(list, n)
	}
	return list, p.delim(']')
}

// Layout gives the tensors the offsets that they have in a file in this order, and
// returns what stands before them and the length of the file. Invalid: a name comes
// twice, or a tensor is none that Read takes.
func Layout(tensors []Tensor) (header []byte, fileSize int64, err error) {
	type described struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	var b bytes.Buffer
	b.WriteString("\x00\x00\x00\x00\x00\x00\x00\x00{")
	at, seen := int64(0), map[string]bool{"__metadata__": true}
	for i := range tensors {
		t := &tensors[i]
		n, ok := size(t.DType, t.Shape)
		if !ok || seen[t.Name] || !utf8.ValidString(t.Name) || n > math.MaxInt64-at {
			return nil, 0, invalid("header", "a tensor that cannot be written").With(t.Name, nil)
		}
		seen[t.Name] = true
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, 0, err
		}
		value, err := json.Marshal(described{t.DType, append([]int64{}, t.Shape...), [2]int64{at, at + n}})
		if err != nil {
			return nil, 0, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
		t.Offset = at
		at += n
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	header = b.Bytes()
	if len(tensors) > MaxTensors || len(header)-8 > MaxHeader {
		return nil, 0, invalid("header", "too long").With(len(header), MaxHeader)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	for i := range tensors {
		tensors[i].Offset += int64(len(header))
	}
	return header, at + int64(len(header)), nil
}
