package cli

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/codec"
)

// maxPart bounds what one part of a file may make this process hold.
const maxPart = 1 << 30

// rawFlags say what a raw file holds, and the steps of its fields.
type rawFlags struct {
	fields string
	shape  codec.Shape
	params codec.Params
}

func (f *rawFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.fields, "fields", "k:bf16:128,v:bf16:128", "fields of a token's entry, KIND:DTYPE:DIMS or KIND:DTYPE:DIMS:STEP")
	c.Flags().IntVar(&f.shape.Layers, "layers", 1, "layers of a part")
	c.Flags().IntVar(&f.shape.Heads, "heads", 1, "heads of a part")
	c.Flags().IntVar(&f.shape.Tokens, "tokens", 256, "tokens of a part")
}

// check says whether parts of the shape can be held.
func (f *rawFlags) check() error {
	if err := f.shape.Validate(); err != nil {
		return err
	}
	if n := f.shape.RawSize(); n > maxPart {
		return usagef("a part has %d bytes, at most %d", n, maxPart)
	}
	return nil
}

// parseFields sets the fields of shape and params. steps has the step of a field
// that names none.
func (f *rawFlags) parseFields(mode codec.Mode, steps func(codec.Kind) float32) error {
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
		fp := codec.FieldParams{Mode: mode, Steps: []float32{float32(step)}}
		if kind == codec.Opaque {
			fp.Mode = codec.Raw
		}
		f.params.Fields = append(f.params.Fields, fp)
	}
	return nil
}

// eachPart calls f for each part of a raw file, with its number and its bytes in
// raw.
func eachPart(path string, raw []byte, f func(n int) error) error {
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
		if err := f(n); err != nil {
			return err
		}
	}
}
