package basis

import "golang.org/x/sys/cpu"

func hasFMA() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

//go:noescape
func addRowsFMA(sums, m *float32, at *int, factors *float32, rows, blocks int)
