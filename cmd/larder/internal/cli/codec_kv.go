package cli

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/larderkv/larder/codec"
)

// maxPart bounds what one part of a file may make this process hold.
const maxPart = 1 << 30

// kvHelp says what files of KV are; kvFlags are what it speaks of.
const kvHelp = `A file of KV is raw, or safetensors if its name ends in .safetensors.
Raw: parts one after another, each of layers x heads x tokens x fields,
little-endian, as --layers, --heads, --tokens and --fields say.
Safetensors: one prompt, or some tokens of it. --tensors says what the tensors are
called, {kind} being k, v, latent or rope, {layer} a number; --layout how their three
dims follow one another. Two dims are tokens and dims of the only head. All layers
have the same fields, from the first to the last without a gap, and there is nothing
else in the file. Parts are of --tokens tokens, the last one of what is left; layers,
heads and fields are the file's, and must be so where flags say them.`

// kvFlags say what a file of KV holds, and the steps of its fields.
type kvFlags struct {
	tensorFlags
	fields string
	shape  codec.Shape
	params codec.Params
	given  *pflag.FlagSet
}

func (f *kvFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.fields, "fields", "k:bf16:128,v:bf16:128", "fields of a token's entry, KIND:DTYPE:DIMS or KIND:DTYPE:DIMS:STEP")
	c.Flags().IntVar(&f.shape.Layers, "layers", 1, "layers of a part")
	c.Flags().IntVar(&f.shape.Heads, "heads", 1, "heads of a part")
	c.Flags().IntVar(&f.shape.Tokens, "tokens", 256, "tokens of a part")
	f.tensorFlags.add(c)
	f.given = c.Flags()
}

// describe sets shape and params from the flags and, where it says what it holds,
// the file. steps has the step of a field that names none.
func (f *kvFlags) describe(path string, mode codec.Mode, steps func(codec.Kind) float32) error {
	if !isSafetensors(path) {
		if err := f.refuse(f.given); err != nil {
			return err
		}
		if err := f.parseFields(mode, steps); err != nil {
			return err
		}
		return f.check()
	}
	t, err := openTensors(path, &f.tensorFlags)
	if err != nil {
		return err
	}
	defer t.close()
	said := f.shape
	f.shape = t.shape
	f.shape.Tokens = said.Tokens
	for name, n := range map[string][2]int{"layers": {said.Layers, t.shape.Layers}, "heads": {said.Heads, t.shape.Heads}} {
		if f.given.Changed(name) && n[0] != n[1] {
			return usagef("--%s is %d, %s has %d", name, n[0], path, n[1])
		}
	}
	if !f.given.Changed("fields") {
		for _, field := range t.shape.Fields {
			f.params.Fields = append(f.params.Fields, fieldParams(field.Kind, mode, steps(field.Kind)))
		}
		return f.check()
	}
	f.shape.Fields = nil
	if err := f.parseFields(mode, steps); err != nil {
		return err
	}
	if err := f.agrees(&t.shape); err != nil {
		return usagef("%s: --fields: %v", path, err)
	}
	return f.check()
}

// agrees says whether a file's shape is that of the parts, but for tokens.
func (f *kvFlags) agrees(s *codec.Shape) error {
	a, b := printShape(&f.shape), printShape(s)
	if a != b {
		return usagef("%s is expected, the file has %s", a, b)
	}
	return nil
}

// printShape is a shape without its tokens, for people.
func printShape(s *codec.Shape) string {
	var fields []string
	for _, f := range s.Fields {
		fields = append(fields, f.Kind.String()+":"+f.DType.String()+":"+strconv.Itoa(f.Dims))
	}
	return "layers from " + strconv.Itoa(s.FirstLayer) + ": " + strconv.Itoa(s.Layers) + ", heads: " + strconv.Itoa(s.Heads) + ", " + strings.Join(fields, ",")
}

// check says whether parts of the shape can be held.
func (f *kvFlags) check() error {
	if err := f.shape.Validate(); err != nil {
		return err
	}
	if n := f.shape.RawSize(); n > maxPart {
		return usagef("a part has %d bytes, at most %d", n, maxPart)
	}
	return nil
}

// parseFields sets the fields of shape and params.
func (f *kvFlags) parseFields(mode codec.Mode, steps func(codec.Kind) float32) error {
	for _, s := range strings.Split(f.fields, ",") {
		p := strings.Split(s, ":")
		if len(p) < 3 || len(p) > 4 {
			return usagef("--fields has %q, not KIND:DTYPE:DIMS or KIND:DTYPE:DIMS:STEP", s)
		}
		kind, err := codec.ParseKind(p[0])
		if err != nil {
			return err
		}
		dtype, err := codec.ParseDType(p[1])
		if err != nil {
			return err
		}
		dims, err := strconv.Atoi(p[2])
		if err != nil {
			return usagef("--fields has the dims %q, not a number", p[2])
		}
		step := float64(steps(kind))
		if len(p) == 4 {
			if step, err = strconv.ParseFloat(p[3], 32); err != nil {
				return usagef("--fields has the step %q, not a number", p[3])
			}
		}
		f.shape.Fields = append(f.shape.Fields, codec.Field{Kind: kind, DType: dtype, Dims: dims})
		f.params.Fields = append(f.params.Fields, fieldParams(kind, mode, float32(step)))
	}
	return nil
}

func fieldParams(kind codec.Kind, mode codec.Mode, step float32) codec.FieldParams {
	if kind == codec.Opaque {
		mode = min(mode, codec.Lossless)
	}
	return codec.FieldParams{Mode: mode, Steps: []float32{step}}
}

// eachPart calls f for each part of a file, with its number, its shape and its bytes,
// which the next part's replace. describe was called, with this file or one like it.
func (f *kvFlags) eachPart(path string, call func(n int, s *codec.Shape, raw []byte) error) error {
	raw := make([]byte, f.shape.RawSize())
	if isSafetensors(path) {
		t, err := openTensors(path, &f.tensorFlags)
		if err != nil {
			return err
		}
		defer t.close()
		if err := f.agrees(&t.shape); err != nil {
			return usagef("%s: %v", path, err)
		}
		return t.eachPart(f.shape.Tokens, raw, call)
	}
	in, err := os.Open(path)
	if err != nil {
		return usagef("%v", err)
	}
	defer func() { _ = in.Close() }()
	for n := 0; ; n++ {
		_, err := io.ReadFull(in, raw)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err != nil {
			return usagef("%s is not a number of parts of %d bytes", path, len(raw))
		}
		if err := call(n, &f.shape, raw); err != nil {
			return err
		}
	}
}
