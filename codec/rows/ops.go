package rows

// Options of New. The zero value is what production runs.
type Options struct {
	// Go forces the reference; tests and benchmarks do.
	Go bool
}

// Ops are the functions of this package with one implementation.
type Ops struct{ wide bool }

// New returns the fastest implementation that the CPU runs.
func New(o Options) *Ops { return &Ops{wide: hasWide() && !o.Go} }

// Wide reports whether the assembly runs.
func (o *Ops) Wide() bool { return o.wide }

// must panics for lengths that only a wrong caller can give.
func must(ok bool) {
	if !ok {
		panic("rows: lengths do not fit")
	}
}
