package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/calibrate"
)

// calibrateFlags say what the files hold, and how the basis is to be.
type calibrateFlags struct {
	kvFlags
	unit, config, pairing string
	joined, positions     int
}

// learned is what calibrate prints.
type learned struct {
	ID    string `json:"id"`
	Unit  string `json:"unit"`
	Bytes int64  `json:"bytes"`
	// Memory that each process needs that codes by it.
	Memory int64 `json:"memory_bytes"`
	Tokens int   `json:"tokens"`
	// Products of a token, each way; decoding leaves out components that are 0.
	Products int64 `json:"products_per_token"`
	// What the calibration itself took.
	LearnerMemory int64   `json:"calibration_memory_bytes"`
	Reading       float64 `json:"reading_cpu_seconds"`
	Solving       float64 `json:"solving_cpu_seconds"`
}

func (a *app) calibrateCommand() *cobra.Command {
	f := &calibrateFlags{}
	c := &cobra.Command{
		Use: "calibrate BASIS KV...", Short: "Compute the basis of calibrated coding from recorded KV",
		Long: `Works on files alone and asks no larderd. Each file is the KV of one prompt from
its start, as larder codec encode reads it, with all heads and layers of the model.
Steps of --fields are those of level 0 in units of a unit's rms. --config is the
model's config.json, which says how positions turn the keys: RoPE kinds default,
linear and llama3. Others are refused: code such a cache plain.

` + kvHelp,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, list []string) error {
			o, err := f.options(list[1])
			if err != nil {
				return err
			}
			out, err := a.calibrate(c, list[0], list[1:], f, o)
			if err != nil {
				return err
			}
			return a.print(out, func() error {
				return render.Table(a.Out, []string{"ID", "UNIT", "BYTES", "MEMORY", "TOKENS", "PRODUCTS/TOKEN", "CPU READING", "CPU SOLVING"}, [][]string{{
					out.ID, out.Unit, render.Bytes(uint64(out.Bytes)), render.Bytes(uint64(out.Memory)), fmt.Sprint(out.Tokens),
					fmt.Sprint(out.Products), fmt.Sprintf("%.1f s", out.Reading), fmt.Sprintf("%.1f s", out.Solving),
				}})
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&f.unit, "unit", "part", "what is coded together: the heads of a part, or a bundle of all heads")
	c.Flags().IntVar(&f.joined, "joined", 1, "part: heads of a head group")
	c.Flags().StringVar(&f.config, "config", "", "config.json of the model; required unless --pairing is none")
	c.Flags().StringVar(&f.pairing, "pairing", "halves", "which dims of a key turn together: halves, neighbours or none")
	c.Flags().IntVar(&f.positions, "positions", 0, "positions that parts may have; 0: what the config says")
	c.Flags().IntVar(&f.params.Sinks, "sinks", 4, "leading tokens of each file to leave out")
	return c
}

// options are those for files like the one at path.
func (f *calibrateFlags) options(path string) (calibrate.Options, error) {
	o := calibrate.Options{Sinks: f.params.Sinks}
	unit, err := basis.ParseUnit(f.unit)
	if err != nil {
		return o, err
	}
	steps := func(k codec.Kind) float32 { return calibrate.DefaultStep(unit, k) }
	if err := f.describe(path, codec.Plain, steps); err != nil {
		return o, err
	}
	o.Shape = basis.Shape{Unit: unit, FirstLayer: f.shape.FirstLayer, Layers: f.shape.Layers, Heads: f.shape.Heads, Joined: f.joined}
	if unit == basis.Bundle {
		o.Shape.Joined = f.shape.Heads
	}
	for i, field := range f.shape.Fields {
		o.Shape.Fields = append(o.Shape.Fields, basis.Field{Kind: uint8(field.Kind), Dims: field.Dims})
		o.Steps = append(o.Steps, f.params.Fields[i].Steps[0])
	}
	pairing, ok := map[string]basis.Pairing{"none": basis.None, "halves": basis.Halves, "neighbours": basis.Neighbours}[f.pairing]
	if !ok {
		return o, usagef("--pairing is %q, not halves, neighbours or none", f.pairing)
	}
	if pairing == basis.None {
		return o, nil
	}
	config, err := os.ReadFile(f.config)
	if err != nil {
		return o, usagef("--config: %v", err)
	}
	rope, err := calibrate.ParseRope(config)
	if err != nil {
		return o, err
	}
	o.Turn = rope.Turn
	o.Shape.Rope = basis.Rope{Pairing: pairing, Dims: 2 * len(rope.Turn), Positions: f.positions}
	if f.positions == 0 {
		o.Shape.Rope.Positions = rope.Positions
	}
	return o, nil
}

func (a *app) calibrate(c *cobra.Command, to string, from []string, f *calibrateFlags, o calibrate.Options) (*learned, error) {
	l, err := calibrate.New(o)
	if err != nil {
		return nil, err
	}
	out := &learned{LearnerMemory: l.Memory(), Unit: o.Shape.Unit.String()}
	start := cpuSeconds()
	for i, path := range from {
		if err := c.Context().Err(); err != nil {
			return nil, err
		}
		err := f.eachPart(path, func(n int, s *codec.Shape, raw []byte) error { return l.Add(raw, s, n*f.shape.Tokens) })
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(a.Err, "%s: file %d of %d, %d tokens\n", path, i+1, len(from), l.Tokens())
	}
	out.Reading, out.Tokens = cpuSeconds()-start, l.Tokens()
	start = cpuSeconds()
	b, err := l.Basis(nil, func(done, all int) {
		if done%8 == 0 || done == all {
			fmt.Fprintf(a.Err, "unit %d of %d\n", done, all)
		}
	})
	if err != nil {
		return nil, err
	}
	out.Solving = cpuSeconds() - start
	made, err := basis.Parse(b)
	if err != nil {
		return nil, err
	}
	out.ID, out.Bytes, out.Memory, out.Products = made.ID().String(), int64(len(b)), made.Memory(), made.Products()
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, out.ID+".basis")
	}
	return out, replace(to, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// cpuSeconds is what this process has used of its cores; 0 where that is unknown.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// readBasis reads the file of a basis.
func readBasis(path string) (*basis.Basis, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usagef("%v", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxPart {
		return nil, usagef("%s is no regular file of at most %d bytes", path, maxPart)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return basis.Parse(b)
}
