package speed

import (
	"context"
	"fmt"
	"strings"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/bench/internal/entropy"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/rans"
)

// variants: what has a bar has the name without a level.
var variants = []variant{
	{"", coding.Way{Mode: codec.Plain, Finest: 1, Coarsest: 1}},
	{".lossless", coding.Way{Mode: codec.Lossless, Finest: 0, Coarsest: 0}},
	{".L0", coding.Way{Mode: codec.Plain, Finest: 0, Coarsest: 0}},
	{".L2", coding.Way{Mode: codec.Plain, Finest: 2, Coarsest: 2}},
	{".L3", coding.Way{Mode: codec.Plain, Finest: 3, Coarsest: 3}},
	{".nested", coding.Way{Mode: codec.Plain, Finest: 0, Coarsest: 3}},
}

// bars in GB/s of bf16, of the fastest kernel.
var bars = map[string]float64{"codec.decode": 6, "codec.encode": 3.5, "codec.lossless.decode": 2, "codec.lossless.encode": 2}

// Rows measures codec.decode and codec.encode (L1 alone), the other levels,
// lossless, and all levels in one object: with the fastest kernel, and L1 and
// lossless with the others, whose names are then behind the rows'; the calibrated mode
// with the fastest; and zstd on the same bytes. Rows of the entropy stage are entropy's. plan.Pairs is at least 15. Rows whose name does
// not contain only are left out.
func Rows(ctx context.Context, plan pairs.Plan, only string) (rows, discarded []report.Row, err error) {
	raw := make([][]byte, objects)
	for i := range raw {
		raw[i] = kv(seed+uint64(i), layers)
	}
	for i, kernel := range rans.Kernels() {
		for k := range variants {
			v := &variants[k]
			if i > 0 && k > 1 {
				continue
			}
			var w *work
			for _, r := range v.rows(kernel, i > 0) {
				if !strings.Contains(r.spec.Name, only) {
					continue
				}
				if w == nil {
					if w, err = newWork(kernel, v, shape(layers), raw); err != nil {
						return rows, discarded, err
					}
				}
				r.spec.Beside = fmt.Sprintf("synthetic KV; %s, %.3f bits an element, all in", w.Kernel(), w.bits)
				f := w.Encode
				if r.level >= 0 {
					f = w.Decode(r.level)
				}
				attempts, err := pairs.Measure(ctx, plan, arm(w.Kernel().String(), &w.Turns, f))
				if err != nil {
					return rows, discarded, fmt.Errorf("%s: %w", r.spec.Name, err)
				}
				row, old := report.From(r.spec, attempts)
				rows, discarded = append(rows, row), append(discarded, old...)
			}
		}
	}
	for _, more := range []func() ([]report.Row, []report.Row, error){
		func() ([]report.Row, []report.Row, error) { return calibratedRows(ctx, plan, only) },
		func() ([]report.Row, []report.Row, error) { return zstdRows(ctx, plan, only, raw) },
		func() ([]report.Row, []report.Row, error) { return entropy.Rows(ctx, plan, only) },
	} {
		list, old, err := more()
		rows, discarded = append(rows, list...), append(discarded, old...)
		if err != nil {
			return rows, discarded, err
		}
	}
	return rows, discarded, nil
}

type spec struct {
	spec  report.Spec
	level int // to decode; -1: encode
}

// rows of one variant: its encoding, and its decoding at each level that it has.
func (v *variant) rows(kernel rans.Kernel, named bool) []spec {
	var list []spec
	add := func(name string, level int) {
		s := report.Spec{Name: name, Unit: "GB/s of bf16", Memcpy: -1}
		if bar := bars[name]; bar > 0 && !named {
			s.Op, s.Bar = ">=", bar
		}
		if named {
			s.Name += "." + kernel.String()
		}
		list = append(list, spec{s, level})
	}
	if v.Finest == v.Coarsest {
		prefix, suffix := "codec", v.name
		if v.Mode == codec.Lossless {
			prefix, suffix = prefix+v.name, ""
		}
		add(prefix+".decode"+suffix, v.Finest)
		add(prefix+".encode"+suffix, -1)
		return list
	}
	for level := v.Coarsest; level >= v.Finest; level-- {
		add(fmt.Sprintf("codec%s.decode.L%d", v.name, level), level)
	}
	add("codec"+v.name+".encode", -1)
	return list
}
