package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Row is one figure. Fields that do not apply are null.
type Row struct {
	Name string `json:"name"`
	// Value is the median of our samples.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Baseline is the median of what was measured beside it.
	Baseline *float64 `json:"baseline"`
	// Ratio is the median of the per-pair ratio ours / baseline.
	Ratio *float64 `json:"ratio"`
	// Low and High are the 5th and 95th percentile of the bootstrap median of
	// Ratio, or of Value where there is no baseline.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// N pairs, or samples where there is no baseline.
	N int `json:"n"`
	// Control is the median ratio of equal neighbours; a row counts only if it
	// lies in 0.97..1.03.
	Control *float64 `json:"control"`
	// Op and Bar are what Ratio, or Value without a baseline, has to be: ">="
	// or "<=".
	Op  *string  `json:"op"`
	Bar *float64 `json:"bar"`

	// Beside the row: the ratio to a plain memcpy of the same bytes, CPU
	// seconds for each GiB of ours (client and daemon), what the baseline is,
	// and anything that a reader must know.
	Memcpy *float64 `json:"memcpy,omitempty"`
	CPU    *float64 `json:"cpu_s_per_gib,omitempty"`
	Beside string   `json:"beside,omitempty"`
	Note   string   `json:"note,omitempty"`

	byInterval bool
}

// slack is how far a median may miss its bar and still meet it.
const slack = 0.02

// Steady is what the control must stay within.
const (
	steadyLow  = 0.97
	steadyHigh = 1.03
)

// Verdict is "met", "missed", "-" for a row without a bar, or "unsteady" where
// the control says that the figure does not count.
func (r *Row) Verdict() string {
	if r.Control != nil && (*r.Control < steadyLow || *r.Control > steadyHigh) {
		return "unsteady"
	}
	if r.Bar == nil || r.Op == nil {
		return "-"
	}
	v, tolerance, most := r.Value, slack, *r.Op == "<="
	if r.Ratio != nil {
		v = *r.Ratio
	}
	if r.byInterval {
		if v, tolerance = r.High, 0; most {
			v = r.Low
		}
	}
	met := v >= *r.Bar*(1-tolerance)
	if most {
		met = v <= *r.Bar*(1+tolerance)
	}
	if met {
		return "met"
	}
	return "missed"
}

// Write stores rows as a JSON list. discarded are attempts that were repeated
// because their control was off; they go beside it, so that no run is lost.
func Write(path string, rows, discarded []Row) error {
	if err := writeJSON(path, rows); err != nil {
		return err
	}
	ext := filepath.Ext(path)
	beside := path[:len(path)-len(ext)] + ".discarded" + ext
	if len(discarded) == 0 {
		if err := os.Remove(beside); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	return writeJSON(beside, discarded)
}

func writeJSON(path string, rows []Row) error {
	if rows == nil {
		rows = []Row{}
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("rows: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
