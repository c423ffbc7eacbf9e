package rows

// Options of New. The zero value is what production runs.
type Options struct {
	// Go forces the reference.
	Go bool
	// AVX2 does without AVX-512, as older CPUs must.
	AVX2 bool
}

// Ops are the functions of this package with one implementation: wide is with
// AVX-512, bf16 with what not all such CPUs have beside it, avx2 without.
type Ops struct{ wide, bf16, avx2 bool }

// New returns the fastest implementation that the CPU runs.
func New(o Options) *Ops {
	wide := hasWide() && !o.Go && !o.AVX2
	return &Ops{wide: wide, bf16: wide && hasBF16(), avx2: !wide && hasAVX2() && !o.Go}
}

// must panics for lengths that only a wrong caller can give.
func must(ok bool) {
	if !ok {
		panic("rows: lengths do not fit")
	}
}
