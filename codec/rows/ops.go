package rows

// Options of New. The zero value is what production runs.
type Options struct {
	// Go forces the reference.
	Go bool
}

// Ops are the functions of this package with one implementation.
type Ops struct{ wide, bf16 bool }

// New returns the fastest implementation that the CPU runs.
func New(o Options) *Ops {
	wide := hasWide() && !o.Go
	return &Ops{wide: wide, bf16: wide && hasBF16()}
}

// must panics for lengths that only a wrong caller can give.
func must(ok bool) {
	if !ok {
		panic("rows: lengths do not fit")
	}
}
