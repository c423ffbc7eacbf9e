package rows

// WithoutBF16 returns Ops that do without AVX512_BF16, as Ice Lake must.
func WithoutBF16() *Ops { return &Ops{wide: hasWide()} }

// Wide reports whether the assembly runs.
func (o *Ops) Wide() bool { return o.wide }
