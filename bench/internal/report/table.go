package report

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// Table prints rows for people.
func Table(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "row\tvalue\tunit\tbaseline\tratio\t90 %\tn\tcontrol\tbar\t\tmemcpy\tCPU s/GiB\tbeside")
	for i := range rows {
		r := &rows[i]
		bar := ""
		if r.Bar != nil && r.Op != nil {
			bar = *r.Op + " " + short(*r.Bar)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s..%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, short(r.Value), r.Unit, maybe(r.Baseline), maybe(r.Ratio),
			short(r.Low), short(r.High), r.N, maybe(r.Control), bar, r.Verdict(), maybe(r.Memcpy), maybe(r.CPU), r.Beside)
		if r.Note != "" {
			_, _ = fmt.Fprintf(t, "  %s\n", r.Note)
		}
	}
	return t.Flush()
}

func maybe(v *float64) string {
	if v == nil {
		return ""
	}
	return short(*v)
}

// short prints three significant digits or more, never an exponent.
func short(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.1 || v <= -0.1 || v == 0:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
