package report

import "github.com/larderkv/larder/bench/internal/pairs"

// Spec is what a row is, before it was measured.
type Spec struct {
	Name, Unit string
	// Beside names the baseline for people; the first of pairs' baselines is
	// taken.
	Beside string
	// Op and Bar; no bar where Op is "".
	Op  string
	Bar float64
	// ByInterval: the bar is missed only if the whole interval misses it.
	ByInterval bool
	// Memcpy is the index among the baselines of the plain memcpy, -1 = none.
	Memcpy int
}

// From makes rows of the attempts at one row: the last one, and those before
// it that were discarded.
func From(s Spec, attempts []pairs.Result) (row Row, discarded []Row) {
	for i, a := range attempts {
		r := Row{Name: s.Name, Value: a.Value, Unit: s.Unit, Low: a.Spread.Low, High: a.Spread.High, N: a.N, Control: &a.Control, Beside: s.Beside}
		if len(a.Against) > 0 {
			b := a.Against[0]
			r.Baseline, r.Ratio, r.Low, r.High = &b.Value, &b.Ratio, b.Low, b.High
		}
		if s.Memcpy >= 0 && s.Memcpy < len(a.Against) {
			m := a.Against[s.Memcpy]
			r.Memcpy = &m.Ratio
		}
		if a.CPUPerGiB > 0 {
			r.CPU = &a.CPUPerGiB
		}
		if s.Op != "" {
			r.Op, r.Bar, r.byInterval = &s.Op, &s.Bar, s.ByInterval
		}
		if i+1 < len(attempts) {
			r.Note = "control off, measured again"
			discarded = append(discarded, r)
			continue
		}
		if !a.Steady {
			r.Note = "control off in every attempt: the machine was too restless"
		}
		row = r
	}
	return row, discarded
}
