package basis

import "golang.org/x/sys/cpu"

func hasFMA() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

func hasAVX512() bool { return cpu.X86.HasAVX512F }

//go:noescape
func addRowsFMA(sums, m *float32, at *int, factors *float32, rows, blocks int)

// n is a multiple of 8, of 4 with AVX2.

//go:noescape
func projectAVX512(c, m, x *float32, n int)

//go:noescape
func projectAVX2(c, m, x *float32, n int)

//go:noescape
func turnFMA(cs, high, low *float32, blocks int)

//go:noescape
func neighboursFMA(row, cs *float32, blocks int, back bool)

//go:noescape
func halvesFMA(x, y, cs *float32, blocks int, back bool)
