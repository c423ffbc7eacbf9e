package cli

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/larderkv/larder/cmd/larder/internal/safetensors"
	"github.com/larderkv/larder/codec"
)

// isSafetensors says by its name what a file is.
func isSafetensors(path string) bool { return strings.HasSuffix(path, ".safetensors") }

// dtypes of safetensors.
var tensorTypes = map[codec.DType]string{
	codec.F32: "F32", codec.BF16: "BF16", codec.F16: "F16", codec.F8E4M3: "F8_E4M3", codec.F8E5M2: "F8_E5M2", codec.U8: "U8",
}

// tensorFlags say which tensor of a file is what.
type tensorFlags struct{ pattern, layout string }

func (f *tensorFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.pattern, "tensors", "layers.{layer}.{kind}", "safetensors: names of the tensors")
	c.Flags().StringVar(&f.layout, "layout", "thd", "safetensors: thd for tokens x heads x dims, htd for heads x tokens x dims")
}

// refuse complains about flags that mean nothing to a raw file.
func (f *tensorFlags) refuse(given *pflag.FlagSet) error {
	if given.Changed("tensors") || given.Changed("layout") {
		return usagef("--tensors and --layout are for files whose name ends in .safetensors")
	}
	return nil
}

// headsFirst is the layout.
func (f *tensorFlags) headsFirst() (bool, error) {
	if f.layout != "thd" && f.layout != "htd" {
		return false, usagef("--layout is %q, not thd or htd", f.layout)
	}
	return f.layout == "htd", nil
}

// names matches the names of tensors: layer and kind are submatches of that name.
func (f *tensorFlags) names() (*regexp.Regexp, error) {
	if strings.Count(f.pattern, "{layer}") != 1 || strings.Count(f.pattern, "{kind}") != 1 {
		return nil, usagef("--tensors is %q, it must have {layer} and {kind} once", f.pattern)
	}
	p := regexp.QuoteMeta(f.pattern)
	p = strings.Replace(p, regexp.QuoteMeta("{layer}"), "(?P<layer>0|[1-9][0-9]{0,4})", 1)
	p = strings.Replace(p, regexp.QuoteMeta("{kind}"), "(?P<kind>[a-z]+)", 1)
	r, err := regexp.Compile("^" + p + "$")
	if err != nil {
		return nil, usagef("--tensors is %q: %v", f.pattern, err)
	}
	return r, nil
}

// name is that of a tensor.
func (f *tensorFlags) name(layer int, kind codec.Kind) string {
	return strings.NewReplacer("{layer}", strconv.Itoa(layer), "{kind}", kind.String()).Replace(f.pattern)
}

// kvTensors is the KV of a safetensors file.
type kvTensors struct {
	file *os.File
	// shape of all of it; its Tokens are 1, and tokens has them: they may be more
	// than a part may have.
	shape      codec.Shape
	tokens     int64
	headsFirst bool
	// at is where each tensor begins, by layer and field.
	at [][]int64
	// block has the rows of some tokens of one tensor, in the file's order.
	block []byte
}

func (t *kvTensors) close() { _ = t.file.Close() }

func openTensors(path string, f *tensorFlags) (*kvTensors, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	headsFirst, err := f.headsFirst()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usagef("%v", err)
	}
	t := &kvTensors{file: file, headsFirst: headsFirst}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = usagef("%s is no regular file", path)
	}
	var list []safetensors.Tensor
	if err == nil {
		list, err = safetensors.Read(file, info.Size())
	}
	if err == nil {
		err = t.place(list, names)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// place finds the layer and field of each tensor.
func (t *kvTensors) place(list []safetensors.Tensor, names *regexp.Regexp) error {
	type key struct {
		layer int
		kind  codec.Kind
	}
	found := map[key]*safetensors.Tensor{}
	low, high := 1<<30, -1
	kinds := map[codec.Kind]bool{}
	for i := range list {
		m := names.FindStringSubmatch(list[i].Name)
		if m == nil {
			return usagef("the tensor %q is not called as --tensors says", list[i].Name)
		}
		layer, err := strconv.Atoi(m[names.SubexpIndex("layer")])
		if err != nil {
			return err
		}
		kind, err := codec.ParseKind(m[names.SubexpIndex("kind")])
		if err != nil {
			return err
		}
		low, high, kinds[kind] = min(low, layer), max(high, layer), true
		found[key{layer, kind}] = &list[i]
	}
	if n := (high - low + 1) * len(kinds); len(list) == 0 || n != len(list) {
		return usagef("%d tensors, not one of each of %d kinds in each layer from %d to %d", len(list), len(kinds), low, high)
	}
	t.shape.FirstLayer, t.shape.Layers, t.shape.Tokens = low, high-low+1, 1
	for kind := codec.K; kind <= codec.Opaque; kind++ {
		if !kinds[kind] {
			continue
		}
		field, err := t.field(found[key{low, kind}], kind, len(t.shape.Fields) == 0)
		if err != nil {
			return err
		}
		t.shape.Fields = append(t.shape.Fields, field)
	}
	for layer := low; layer <= high; layer++ {
		var at []int64
		for _, field := range t.shape.Fields {
			e, first := found[key{layer, field.Kind}], found[key{low, field.Kind}]
			if e.DType != first.DType || !slices.Equal(e.Shape, first.Shape) {
				return usagef("the tensor %q is %s %v, in layer %d it is %s %v", e.Name, e.DType, e.Shape, low, first.DType, first.Shape)
			}
			at = append(at, e.Offset)
		}
		t.at = append(t.at, at)
	}
	return t.shape.Validate()
}

// field is what a tensor says of a field; its tokens and heads are those of the
// first one.
func (t *kvTensors) field(e *safetensors.Tensor, kind codec.Kind, first bool) (f codec.Field, err error) {
	dims := slices.Clone(e.Shape)
	if t.headsFirst && len(dims) == 3 {
		dims[0], dims[1] = dims[1], dims[0]
	}
	if len(dims) == 2 {
		dims = []int64{dims[0], 1, dims[1]}
	}
	if len(dims) != 3 {
		return f, usagef("the tensor %q has the shape %v, not three dims, or two", e.Name, e.Shape)
	}
	// A tensor is no larger than its file, so that none of these overflows.
	if dims[0] < 1 || dims[1] < 1 || dims[1] > codec.MaxHeads || dims[2] < 1 || dims[2] > codec.MaxDims {
		return f, usagef("the tensor %q has the shape %v: tokens are from 1 on, heads 1 to %d, dims 1 to %d", e.Name, e.Shape, codec.MaxHeads, codec.MaxDims)
	}
	if first {
		t.tokens, t.shape.Heads = dims[0], int(dims[1])
	}
	if dims[0] != t.tokens || int(dims[1]) != t.shape.Heads {
		return f, usagef("the tensor %q has %d tokens and %d heads, others have %d and %d", e.Name, dims[0], dims[1], t.tokens, t.shape.Heads)
	}
	for d, name := range tensorTypes {
		if name == e.DType {
			return codec.Field{Kind: kind, DType: d, Dims: int(dims[2])}, nil
		}
	}
	return f, usagef("the tensor %q has the dtype %s", e.Name, e.DType)
}

// eachPart calls f for each part of so many tokens, in raw, which is large enough.
func (t *kvTensors) eachPart(tokens int, raw []byte, f func(n int, s *codec.Shape, raw []byte) error) error {
	s := t.shape
	for n, first := 0, int64(0); first < t.tokens; n, first = n+1, first+int64(tokens) {
		s.Tokens = int(min(int64(tokens), t.tokens-first))
		part := raw[:s.RawSize()]
		err := t.blocks(&s, first, func(block []byte, at int64, layer, offset, width, head, heads int) error {
			if _, err := io.ReadFull(io.NewSectionReader(t.file, at, int64(len(block))), block); err != nil {
				return err
			}
			t.rows(&s, layer, offset, width, head, heads, func(inFile, inPart int) {
				copy(part[inPart:inPart+width], block[inFile:])
			})
			return nil
		})
		if err != nil {
			return err
		}
		if err := f(n, &s, part); err != nil {
			return err
		}
	}
	return nil
}

// write puts a part that begins with token first where it belongs.
func (t *kvTensors) write(s *codec.Shape, first int64, part []byte) error {
	return t.blocks(s, first, func(block []byte, at int64, layer, offset, width, head, heads int) error {
		t.rows(s, layer, offset, width, head, heads, func(inFile, inPart int) {
			copy(block[inFile:inFile+width], part[inPart:])
		})
		_, err := t.file.WriteAt(block, at)
		return err
	})
}

// blocks calls f for what lies together in the file of tokens from first on: one
// field of a layer, of all heads or of one. block is memory for it, at is where it
// lies, offset and width are where the field lies in a row.
func (t *kvTensors) blocks(s *codec.Shape, first int64, f func(block []byte, at int64, layer, offset, width, head, heads int) error) error {
	for layer := range s.Layers {
		offset := 0
		for i, field := range s.Fields {
			width := field.Dims * field.DType.Size()
			heads, stride := s.Heads, int64(0)
			if t.headsFirst {
				heads, stride = 1, t.tokens*int64(width)
			}
			if n := s.Tokens * heads * width; cap(t.block) < n {
				t.block = make([]byte, n)
			}
			block := t.block[:s.Tokens*heads*width]
			for head := 0; head < s.Heads; head += heads {
				at := t.at[layer][i] + int64(head)*stride + first*int64(heads*width)
				if err := f(block, at, layer, offset, width, head, heads); err != nil {
					return err
				}
			}
			offset += width
		}
	}
	return nil
}

// rows calls f with where each row of a block lies there, and in a part.
func (t *kvTensors) rows(s *codec.Shape, layer, offset, width, head, heads int, f func(inFile, inPart int)) {
	for h := range heads {
		at := layer*s.LayerSize() + (head+h)*s.Tokens*s.RowSize() + offset
		for token := range s.Tokens {
			f((token*heads+h)*width, at+token*s.RowSize())
		}
	}
}

// createTensors lays a file out for so many tokens of a shape, each tensor aligned
// to its elements.
func createTensors(file *os.File, s *codec.Shape, tokens int64, f *tensorFlags) (*kvTensors, error) {
	if _, err := f.names(); err != nil {
		return nil, err
	}
	headsFirst, err := f.headsFirst()
	if err != nil {
		return nil, err
	}
	t := &kvTensors{file: file, shape: *s, tokens: tokens, headsFirst: headsFirst}
	order := make([]int, len(s.Fields))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return s.Fields[b].DType.Size() - s.Fields[a].DType.Size() })
	var list []safetensors.Tensor
	for _, i := range order {
		field := s.Fields[i]
		shape := []int64{tokens, int64(s.Heads), int64(field.Dims)}
		if headsFirst {
			shape[0], shape[1] = shape[1], shape[0]
		}
		for layer := range s.Layers {
			list = append(list, safetensors.Tensor{Name: f.name(s.FirstLayer+layer, field.Kind), DType: tensorTypes[field.DType], Shape: shape})
		}
	}
	header, _, err := safetensors.Layout(list)
	if err != nil {
		return nil, err
	}
	t.at = make([][]int64, s.Layers)
	for layer := range t.at {
		t.at[layer] = make([]int64, len(s.Fields))
	}
	for k, i := range order {
		for layer := range s.Layers {
			t.at[layer][i] = list[k*s.Layers+layer].Offset
		}
	}
	_, err = file.WriteAt(header, 0)
	return t, err
}
