package rows

// WithoutBF16 returns Ops that do without AVX512_BF16, as Ice Lake must.
func WithoutBF16() *Ops { return &Ops{wide: hasWide()} }

// Name says which assembly runs.
func (o *Ops) Name() string {
	switch {
	case o.bf16:
		return "bf16"
	case o.wide:
		return "wide"
	case o.avx2:
		return "avx2"
	}
	return "go"
}
