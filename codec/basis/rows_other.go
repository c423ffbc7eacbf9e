//go:build !amd64

package basis

// There is no assembly: it is not called.

func hasFMA() bool { return false }

func addRowsFMA(*float32, *float32, *int, *float32, int, int) { panic("basis: no assembly") }
