package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// What codec bench measures: parts of up to so many bytes, but one at least, each
// run for so long at least.
const (
	codecBenchBytes = 64 << 20
	codecBenchTime  = 60 * time.Millisecond
)

// codecBenched is what codec bench prints.
type codecBenched struct {
	Kernel   string           `json:"kernel"`
	Parts    int              `json:"parts"`
	Raw      int64            `json:"raw_bytes"`
	Elements int64            `json:"elements"`
	Runs     int              `json:"runs"`
	Rows     []codecBenchedAt `json:"rows"`
}

// codecBenchedAt is one way to code, read at one level.
type codecBenchedAt struct {
	Mode     string `json:"mode"`
	Finest   int    `json:"finest"`
	Coarsest int    `json:"coarsest"`
	Level    int    `json:"level"`
	// Uncoded bytes: median of the runs.
	Encode float64 `json:"encode_gb_s"`
	Decode float64 `json:"decode_gb_s"`
	// Of the prefix that holds the level, header and tables included.
	Ratio float64 `json:"ratio"`
	Bits  float64 `json:"bits_per_element"`
	// The largest absolute difference of an element from what it was.
	MaxError float64 `json:"max_error"`
}

type codecBenchFlags struct {
	kvFlags
	basis           string
	parts, runs     int
	position, first int
}

func (a *app) benchCodecCommand() *cobra.Command {
	f := &codecBenchFlags{}
	c := &cobra.Command{
		Use: "bench KV", Short: "What coding a file of KV gives and costs, by mode and level", Args: args(cobra.ExactArgs(1)),
		Long: `Codes the first parts of a file on one core, in memory, as make bench SET=codec-speed
does: lossless, each level alone, and all levels in one object, read at each. GB/s are
of uncoded bytes, medians of --runs, each of 60 ms at least; sizes are whole objects.
The error is the largest of any element. Steps are those of --fields, or the default ones.

` + kvHelp,
		RunE: func(c *cobra.Command, list []string) error {
			if f.runs < 1 || f.runs > 1000 {
				return usagef("--runs is %d, not 1 to 1000", f.runs)
			}
			if f.parts < 0 {
				return usagef("--parts is %d", f.parts)
			}
			out, err := f.bench(c.Context(), list[0])
			if err != nil {
				return err
			}
			return a.print(out, func() error { return a.printCodecBench(out) })
		},
	}
	f.add(c)
	c.Flags().IntVar(&f.runs, "runs", 5, "runs that each median is of")
	c.Flags().IntVar(&f.parts, "parts", 0, "parts to measure; 0: what 64 MiB hold, or one")
	c.Flags().StringVar(&f.basis, "basis", "", "file of a basis: measure calibrated coding too")
	c.Flags().IntVar(&f.position, "position", 0, "calibrated: position of the first token")
	c.Flags().IntVar(&f.first, "first-head", 0, "calibrated: number of the first head in the model")
	return c
}

func (a *app) printCodecBench(b *codecBenched) error {
	err := render.Pairs(a.Out, "measured", fmt.Sprintf("%d parts, %s, %s, one core, median of %d", b.Parts, render.Bytes(uint64(b.Raw)), b.Kernel, b.Runs))
	if err != nil {
		return err
	}
	var rows [][]string
	for _, r := range b.Rows {
		levels := ""
		if r.Mode != codec.Raw.String() && r.Mode != codec.Lossless.String() {
			levels = "L" + strconv.Itoa(r.Finest)
			if r.Finest != r.Coarsest {
				levels = fmt.Sprintf("L%d of L%d-L%d", r.Level, r.Finest, r.Coarsest)
			}
		}
		rows = append(rows, []string{r.Mode, levels, fmt.Sprintf("%.2f", r.Encode), fmt.Sprintf("%.2f", r.Decode),
			fmt.Sprintf("%.2fx", r.Ratio), fmt.Sprintf("%.3f", r.Bits), fmt.Sprintf("%.4g", r.MaxError)})
	}
	return render.Table(a.Out, []string{"MODE", "LEVEL", "ENCODE GB/S", "DECODE GB/S", "RATIO", "BITS/ELEMENT", "MAX ERROR"}, rows)
}

// errEnough ends the reading of a file.
var errEnough = errors.New("enough parts")

// read returns the parts to measure, with the parameters of plain coding.
func (f *codecBenchFlags) read(path string) ([]coding.Part, error) {
	limit := f.parts
	if limit == 0 {
		limit = max(codecBenchBytes/f.shape.RawSize(), 1)
	} else if n := int64(limit) * int64(f.shape.RawSize()); n > maxPart || n/int64(limit) != int64(f.shape.RawSize()) {
		return nil, usagef("--parts %d have more than %d bytes", limit, maxPart)
	}
	var parts []coding.Part
	err := f.eachPart(path, func(_ int, s *codec.Shape, raw []byte) error {
		if len(parts) == limit {
			return errEnough
		}
		shape := *s
		parts = append(parts, coding.Part{Shape: &shape, Raw: append([]byte(nil), raw...)})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return parts, err
}

func (f *codecBenchFlags) bench(ctx context.Context, path string) (*codecBenched, error) {
	if err := f.describe(path, codec.Plain, codec.DefaultStep); err != nil {
		return nil, err
	}
	parts, err := f.read(path)
	if err != nil {
		return nil, err
	}
	out := &codecBenched{Parts: len(parts), Runs: f.runs}
	for _, p := range parts {
		out.Raw += int64(len(p.Raw))
		for _, field := range p.Shape.Fields {
			out.Elements += int64(p.Shape.Layers) * int64(p.Shape.Heads) * int64(p.Shape.Tokens) * int64(field.Dims)
		}
	}
	modes := []codec.Mode{codec.Plain}
	var calibration *codec.Calibration
	if f.basis != "" {
		b, err := readBasis(f.basis)
		if err != nil {
			return nil, err
		}
		calibration = &codec.Calibration{Basis: b, Position: f.position, FirstHead: f.first}
		modes = append(modes, codec.Calibrated)
	}
	ways := []coding.Way{{Mode: codec.Lossless}}
	for _, mode := range modes {
		for level := codec.L0; level <= codec.L3; level++ {
			ways = append(ways, coding.Way{Mode: mode, Finest: level, Coarsest: level})
		}
		ways = append(ways, coding.Way{Mode: mode, Finest: codec.L0, Coarsest: codec.L3})
	}
	for i := range ways {
		if err := f.measure(ctx, out, &ways[i], parts, calibration); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// measure appends the rows of one way.
func (f *codecBenchFlags) measure(ctx context.Context, out *codecBenched, way *coding.Way, parts []coding.Part, calibration *codec.Calibration) error {
	position := f.position
	for i := range parts {
		p := &parts[i]
		p.Params = way.Params(p.Shape)
		for k := range p.Params.Fields {
			p.Params.Fields[k].Steps = f.params.Fields[k].Steps
		}
		if way.Mode == codec.Calibrated {
			c := *calibration
			c.Position = position
			p.Params.Calibration = &c
		}
		position += p.Shape.Tokens
	}
	var bases codec.Bases
	if calibration != nil {
		bases = only(calibration.Basis)
	}
	w, err := coding.New(rans.Auto, parts, bases)
	if err != nil {
		return err
	}
	out.Kernel = w.Kernel().String()
	speed := func(call func(int) error) (float64, error) {
		var all []float64
		for range f.runs {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			n, took, err := w.Measure(call, codecBenchTime)
			if err != nil {
				return 0, err
			}
			all = append(all, float64(n)/1e9/took.Seconds())
		}
		return median(all), nil
	}
	encode, err := speed(w.Encode)
	if err != nil {
		return err
	}
	for level := way.Coarsest; level >= way.Finest; level-- {
		row := codecBenchedAt{Mode: way.Mode.String(), Finest: way.Finest, Coarsest: way.Coarsest, Level: level, Encode: encode}
		size := int64(0)
		for i, object := range w.Objects() {
			h, err := codec.Parse(object)
			if err != nil {
				return err
			}
			size += h.Prefix(level)
			if err := w.Decode(level)(i); err != nil {
				return err
			}
			row.MaxError = max(row.MaxError, maxError(parts[i].Shape, parts[i].Raw, w.Decoded(i)))
		}
		row.Ratio, row.Bits = float64(out.Raw)/float64(size), float64(size)*8/float64(out.Elements)
		if row.Decode, err = speed(w.Decode(level)); err != nil {
			return err
		}
		out.Rows = append(out.Rows, row)
	}
	return nil
}

// maxError is the largest absolute difference of an element. What is no number is
// coded exactly, and differs from nothing.
func maxError(s *codec.Shape, a, b []byte) float64 {
	largest := 0.
	for i, field := range s.Fields {
		if field.Kind == codec.Opaque {
			continue
		}
		x, y := make([]float32, field.Dims), make([]float32, field.Dims)
		for layer := range s.Layers {
			for head := range s.Heads {
				for token := range s.Tokens {
					s.Load(x, a, layer, i, head, token)
					s.Load(y, b, layer, i, head, token)
					for k, v := range x {
						if d := math.Abs(float64(v) - float64(y[k])); d > largest {
							largest = d
						}
					}
				}
			}
		}
	}
	return largest
}
