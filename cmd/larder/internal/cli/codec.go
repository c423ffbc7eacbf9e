package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
)

// maxPart bounds what one part of a file may make this process hold.
const maxPart = 1 << 30

func (a *app) codecCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "codec", Short: "Code KV bytes in files: encode, decode, inspect",
		Long: `Works on files alone and asks no larderd. A raw file is parts one after another,
each of layers x heads x tokens x fields, little-endian, as --fields, --layers,
--heads and --tokens say. A coded file is their objects one after another.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.encodeCommand(), a.decodeCommand(), a.inspectObjectCommand())
	return c
}

// encodeFlags are the shape and the parameters of encode.
type encodeFlags struct {
	fields, levels, mode string
	shape                codec.Shape
	params               codec.Params

	basis       string
	calibration codec.Calibration
}

// parse reads "k:bf16:128,v:bf16:128:0.07" and "0-3", and the basis.
func (f *encodeFlags) parse() error {
	mode, err := codec.ParseMode(f.mode)
	if err != nil {
		return err
	}
	if (mode == codec.Calibrated) != (f.basis != "") {
		return usagef("--mode calibrated and --basis go together")
	}
	if f.basis != "" {
		if f.calibration.Basis, err = readBasis(f.basis); err != nil {
			return err
		}
		f.params.Calibration = &f.calibration
	}
	if err := f.parseFields(mode, codec.DefaultStep); err != nil {
		return err
	}
	if mode < codec.Plain {
		return nil
	}
	low, high, nested := strings.Cut(f.levels, "-")
	if !nested {
		high = low
	}
	if f.params.Finest, err = strconv.Atoi(low); err == nil {
		f.params.Coarsest, err = strconv.Atoi(high)
	}
	if err != nil {
		return usagef("--levels is %q, not a level or a range like 0-3", f.levels)
	}
	return nil
}

// parseFields sets the fields of shape and params. steps has the step of a field
// that names none.
func (f *encodeFlags) parseFields(mode codec.Mode, steps func(codec.Kind) float32) error {
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

// coded is what encode and inspect print for each part.
type coded struct {
	Part   int     `json:"part"`
	Raw    int64   `json:"raw_bytes"`
	Stored int64   `json:"stored_bytes"`
	Ratio  float64 `json:"ratio"`
	Header int64   `json:"header_bytes"`
	// Basis that decoding needs.
	Basis string `json:"basis,omitempty"`
	// Prefix of each level, coarsest first.
	Levels []codedLevel `json:"levels"`
}

type codedLevel struct {
	Level  int     `json:"level"`
	Prefix int64   `json:"prefix_bytes"`
	Ratio  float64 `json:"ratio"`
}

func describe(part int, h *codec.Header) coded {
	raw := int64(h.RawSize())
	d := coded{Part: part, Raw: raw, Stored: h.ObjectSize, Ratio: float64(raw) / float64(h.ObjectSize), Header: h.Size}
	if h.Basis != nil {
		d.Basis = h.Basis.ID.String()
	}
	for l := h.Coarsest; l >= h.Finest; l-- {
		n := h.Prefix(l)
		d.Levels = append(d.Levels, codedLevel{l, n, float64(raw) / float64(n)})
	}
	return d
}

func (a *app) printCoded(list []coded) error {
	return a.print(list, func() error {
		var rows [][]string
		for _, d := range list {
			levels := ""
			for _, l := range d.Levels {
				levels += fmt.Sprintf("L%d %.2fx  ", l.Level, l.Ratio)
			}
			rows = append(rows, []string{strconv.Itoa(d.Part), render.Bytes(uint64(d.Raw)), render.Bytes(uint64(d.Stored)), levels})
		}
		return render.Table(a.Out, []string{"PART", "RAW", "STORED", "LEVELS"}, rows)
	})
}

func (a *app) encodeCommand() *cobra.Command {
	f := &encodeFlags{}
	c := &cobra.Command{
		Use: "encode RAW CODED", Short: "Encode a raw file", Args: args(cobra.ExactArgs(2)),
		Long: `Fields are KIND:DTYPE:DIMS with an optional :STEP, the step of level 0 in units
of a head's rms. Kinds: k, v, latent, rope, opaque. The first part is the start
of a prompt: its --sinks tokens stay exact. Calibrated parts follow one another
in the prompt: the n-th has --position plus n times --tokens; their steps are the
basis's, times --scale.`,
		RunE: func(_ *cobra.Command, list []string) error {
			if err := f.parse(); err != nil {
				return err
			}
			out, err := a.encodeFile(list[0], list[1], f)
			if err != nil {
				return err
			}
			return a.printCoded(out)
		},
	}
	c.Flags().StringVar(&f.fields, "fields", "k:bf16:128,v:bf16:128", "fields of a token's entry")
	c.Flags().IntVar(&f.shape.Layers, "layers", 1, "layers of a part")
	c.Flags().IntVar(&f.shape.Heads, "heads", 1, "heads of a part")
	c.Flags().IntVar(&f.shape.Tokens, "tokens", 256, "tokens of a part")
	c.Flags().StringVar(&f.mode, "mode", "plain", "raw, lossless, plain or calibrated")
	c.Flags().StringVar(&f.levels, "levels", "0-3", "plain and calibrated: one level, or all levels of a range in one object")
	c.Flags().IntVar(&f.params.Sinks, "sinks", 0, "plain and calibrated: leading tokens of the first part that stay exact")
	c.Flags().StringVar(&f.basis, "basis", "", "calibrated: file of the basis, of larder calibrate")
	c.Flags().IntVar(&f.calibration.Position, "position", 0, "calibrated: position of the first token")
	c.Flags().IntVar(&f.calibration.FirstHead, "first-head", 0, "calibrated: number of the first head in the model")
	c.Flags().Float32Var(&f.calibration.Scale, "scale", 1, "calibrated: factor of all steps")
	return c
}

func (a *app) encodeFile(from, to string, f *encodeFlags) ([]coded, error) {
	if err := f.shape.Validate(); err != nil {
		return nil, err
	}
	if f.shape.RawSize() > maxPart {
		return nil, usagef("a part has %d bytes, at most %d", f.shape.RawSize(), maxPart)
	}
	in, err := os.Open(from)
	if err != nil {
		return nil, usagef("%v", err)
	}
	defer func() { _ = in.Close() }()
	coder, err := rans.New(rans.Options{})
	if err != nil {
		return nil, err
	}
	e := codec.NewEncoder(coder)
	raw, object := make([]byte, f.shape.RawSize()), []byte(nil)
	var list []coded
	err = replace(to, func(w io.Writer) error {
		params := f.params
		for {
			_, err := io.ReadFull(in, raw)
			if errors.Is(err, io.EOF) && len(list) > 0 {
				return nil
			}
			if err != nil {
				return usagef("%s is not a number of parts of %d bytes", from, len(raw))
			}
			if object, err = e.Encode(object[:0], raw, &f.shape, &params); err != nil {
				return err
			}
			h, err := codec.Parse(object)
			if err != nil {
				return err
			}
			list = append(list, describe(len(list), h))
			if _, err := w.Write(object); err != nil {
				return err
			}
			params.Sinks = 0
			f.calibration.Position += f.shape.Tokens
		}
	})
	return list, err
}

// objects calls f with each object of a coded file.
func objects(path string, f func(*codec.Header, []byte) error) error {
	in, err := os.Open(path)
	if err != nil {
		return usagef("%v", err)
	}
	defer func() { _ = in.Close() }()
	b := bufio.NewReaderSize(in, 1<<20)
	var object []byte
	for n := 0; ; n++ {
		first, err := b.Peek(48)
		if errors.Is(err, io.EOF) && len(first) == 0 && n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		size, err := codec.HeaderSize(first)
		if err != nil {
			return err
		}
		object, err = fill(b, object[:0], size)
		if err != nil {
			return err
		}
		h, err := codec.Parse(object)
		if err != nil {
			return err
		}
		if h.ObjectSize > maxPart || h.RawSize() > maxPart {
			return usagef("object %d is larger than %d bytes", n, maxPart)
		}
		if object, err = fill(b, object, h.ObjectSize-size); err != nil {
			return err
		}
		if err := f(h, object); err != nil {
			return err
		}
	}
}

// fill appends n bytes. It holds no more than the file has.
func fill(r io.Reader, dst []byte, n int64) ([]byte, error) {
	w := bytes.NewBuffer(dst)
	got, err := io.CopyN(w, r, n)
	if err != nil {
		return w.Bytes(), usagef("the file ends after %d of %d bytes", got, n)
	}
	return w.Bytes(), nil
}

func (a *app) decodeCommand() *cobra.Command {
	level, basisFile := 0, ""
	c := &cobra.Command{
		Use: "decode CODED RAW", Short: "Decode a coded file", Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, list []string) error {
			if level < codec.L0 || level > codec.L3 {
				return usagef("--level is %d, not 0 to 3", level)
			}
			coder, err := rans.New(rans.Options{})
			if err != nil {
				return err
			}
			r := codec.NewReader(coder)
			if basisFile != "" {
				b, err := readBasis(basisFile)
				if err != nil {
					return err
				}
				r.SetBases(func(id basis.ID) *basis.Basis {
					if id != b.ID() {
						return nil
					}
					return b
				})
			}
			var raw []byte
			return replace(list[1], func(w io.Writer) error {
				return objects(list[0], func(h *codec.Header, object []byte) error {
					if n := h.RawSize(); cap(raw) < n {
						raw = make([]byte, n)
					}
					raw = raw[:h.RawSize()]
					if err := r.Decode(raw, object[:h.Prefix(level)], h.Uncoded(), level); err != nil {
						return err
					}
					_, err := w.Write(raw)
					return err
				})
			})
		},
	}
	c.Flags().IntVar(&level, "level", 0, "level to decode at; only the prefix that holds it is looked at")
	c.Flags().StringVar(&basisFile, "basis", "", "file of the basis of calibrated objects")
	return c
}

func (a *app) inspectObjectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect CODED", Short: "Sizes and levels of a coded file", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, list []string) error {
			var out []coded
			err := objects(list[0], func(h *codec.Header, _ []byte) error {
				out = append(out, describe(len(out), h))
				return nil
			})
			if err != nil {
				return err
			}
			return a.printCoded(out)
		},
	}
}
