package entropy

import (
	"context"
	"fmt"
	"strings"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/codec/rans"
)

// seed of the symbols: the same in every run.
const seed = 20261125

// Rows measures codec.rans.decode and codec.rans.encode of every kernel that
// this CPU runs, each beside huff0; the bars are the fastest kernel's. The other
// kernels' rows have its name behind theirs. plan.Pairs is at least 15. Rows whose
// name does not contain only are left out.
func Rows(ctx context.Context, plan pairs.Plan, only string) (rows, discarded []report.Row, err error) {
	all, bits, err := Heads(seed)
	if err != nil {
		return nil, nil, err
	}
	huff, err := huffCoding(all)
	if err != nil {
		return nil, nil, err
	}
	for i, kernel := range rans.Kernels() {
		ours, err := ransCoding(kernel, all)
		if err != nil {
			return rows, discarded, err
		}
		beside := fmt.Sprintf("%s on the same symbols; entropy %.3f bits, %s %.3f with states, huff0 %.3f", huff.name, bits, ours.name, ours.size*8/symbols, huff.size*8/symbols)
		for _, r := range []struct {
			name         string
			bar          float64
			ours, theirs func(int) error
		}{
			{"codec.rans.decode", 4, ours.decode, huff.decode},
			{"codec.rans.decode.pair", 0, ours.pair, huff.pair},
			{"codec.rans.encode", 3, ours.encode, huff.encode},
			{"codec.rans.encode.pair", 0, ours.encodePair, huff.encodePair},
			{"codec.rans.encode.counted", 0, ours.counted, huff.counted},
		} {
			spec := report.Spec{Name: r.name, Unit: "GB/s of symbols", Beside: beside, Op: ">=", Bar: r.bar, Memcpy: -1}
			if i > 0 {
				spec.Name += "." + kernel.String()
			}
			if i > 0 || r.bar == 0 {
				spec.Op = ""
			}
			if !strings.Contains(spec.Name, only) {
				continue
			}
			attempts, err := pairs.Measure(ctx, plan, arm(ours.name, r.ours), arm(huff.name, r.theirs))
			if err != nil {
				return rows, discarded, fmt.Errorf("%s: %w", spec.Name, err)
			}
			row, old := report.From(spec, attempts)
			rows, discarded = append(rows, row), append(discarded, old...)
		}
	}
	return rows, discarded, nil
}
