package rans

import (
	"strconv"

	"github.com/larderkv/larder/api/fault"
)

// Kernel is an implementation of the inner loops. All give equal bytes.
type Kernel uint8

const (
	// Auto is the fastest kernel that the CPU runs.
	Auto Kernel = iota
	// Go is the reference, and the fallback.
	Go
	// AVX2 needs x86-64-v3.
	AVX2
	// AVX512 needs F, BW, VBMI and VBMI2: Ice Lake, Zen 4 and later.
	AVX512
)

var kernelNames = [...]string{"auto", "go", "avx2", "avx512"}

// String returns the kernel's name as the benchmarks show it.
func (k Kernel) String() string {
	if int(k) >= len(kernelNames) {
		return "kernel(" + strconv.Itoa(int(k)) + ")"
	}
	return kernelNames[k]
}

// Kernels returns the kernels that this CPU runs, fastest first.
func Kernels() []Kernel { return append(simdKernels(), Go) }

// Options of New. The zero value is what production runs.
type Options struct {
	// Kernel forces one implementation; tests and benchmarks do. Auto unless set.
	Kernel Kernel
}

// Coder encodes and decodes with one kernel.
type Coder struct{ kernel Kernel }

// New returns a coder. It answers unavailable when the CPU does not run the
// kernel that the options force.
func New(o Options) (*Coder, error) {
	for _, k := range Kernels() {
		if o.Kernel == Auto || o.Kernel == k {
			return &Coder{kernel: k}, nil
		}
	}
	return nil, fault.New(fault.Unavailable, "rans.kernel", "this CPU does not run it").With(o.Kernel, nil)
}

// Kernel returns the kernel that c runs, never Auto.
func (c *Coder) Kernel() Kernel { return c.kernel }
