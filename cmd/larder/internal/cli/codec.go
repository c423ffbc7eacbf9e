package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

func (a *app) codecCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "codec", Short: "Code KV bytes in files: encode, decode, inspect, bench",
		Long: `Works on files alone and asks no larderd. A coded file is the objects of parts of
KV one after another.

` + kvHelp,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.encodeCommand(), a.decodeCommand(), a.inspectObjectCommand(), a.benchCodecCommand())
	return c
}

// encodeFlags are what encode is asked for.
type encodeFlags struct {
	kvFlags
	levels, mode, basis string
	calibration         codec.Calibration
}

// parse reads "k:bf16:128,v:bf16:128:0.07" and "0-3", the basis, and what the file of
// KV says of itself.
func (f *encodeFlags) parse(path string) error {
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
	if err := f.describe(path, mode, codec.DefaultStep); err != nil {
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

// coded is what encode and inspect print for each part.
type coded struct {
	Part   int     `json:"part"`
	Raw    int64   `json:"raw_bytes"`
	Stored int64   `json:"stored_bytes"`
	Ratio  float64 `json:"ratio"`
	Header int64   `json:"header_bytes"`
	// Basis that decoding needs.
	Basis string `json:"basis,omitempty"`
	// Units, by how they are stored.
	Units map[string]int `json:"units"`
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
	d := coded{Part: part, Raw: raw, Stored: h.ObjectSize, Ratio: float64(raw) / float64(h.ObjectSize), Header: h.Size, Units: h.Ways()}
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
			var ways []string
			for _, way := range slices.Sorted(maps.Keys(d.Units)) {
				ways = append(ways, fmt.Sprintf("%d %s", d.Units[way], way))
			}
			rows = append(rows, []string{strconv.Itoa(d.Part), render.Bytes(uint64(d.Raw)), render.Bytes(uint64(d.Stored)), strings.Join(ways, ", "), levels})
		}
		return render.Table(a.Out, []string{"PART", "RAW", "STORED", "UNITS", "LEVELS"}, rows)
	})
}

func (a *app) encodeCommand() *cobra.Command {
	f := &encodeFlags{}
	c := &cobra.Command{
		Use: "encode KV CODED", Short: "Encode a file of KV", Args: args(cobra.ExactArgs(2)),
		Long: kvHelp + `

Fields are KIND:DTYPE:DIMS with an optional :STEP, the step of level 0 in units
of a head's rms. Kinds: k, v, latent, rope, opaque. Types: fp32, bf16, fp16, fp8_e4m3,
fp8_e5m2; u8 for opaque alone. Opaque fields are coded without loss, or raw. The first
part is the start of a prompt: its --sinks tokens stay exact. Calibrated parts follow one another
in the prompt: the n-th has --position plus n times --tokens; their steps are the
basis's, times --scale.`,
		RunE: func(_ *cobra.Command, list []string) error {
			if err := f.parse(list[0]); err != nil {
				return err
			}
			out, err := a.encodeFile(list[0], list[1], f)
			if err != nil {
				return err
			}
			return a.printCoded(out)
		},
	}
	f.add(c)
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
	coder, err := rans.New(rans.Options{})
	if err != nil {
		return nil, err
	}
	e := codec.NewEncoder(coder)
	var object []byte
	var list []coded
	err = replace(to, func(w io.Writer) error {
		params := f.params
		return f.eachPart(from, func(n int, s *codec.Shape, raw []byte) (err error) {
			if object, err = e.Encode(object[:0], raw, s, &params); err != nil {
				return err
			}
			h, err := codec.Parse(object)
			if err != nil {
				return err
			}
			list = append(list, describe(n, h))
			params.Sinks = 0
			f.calibration.Position += s.Tokens
			_, err = w.Write(object)
			return err
		})
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
