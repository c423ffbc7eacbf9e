//go:build !amd64

package basis

// There is no assembly: it is not called.

func hasFMA() bool    { return false }
func hasAVX512() bool { return false }

func addRowsFMA(*float32, *float32, *int, *float32, int, int) { panic("basis: no assembly") }
func projectAVX512(*float32, *float32, *float32, int)         { panic("basis: no assembly") }
func projectAVX2(*float32, *float32, *float32, int)           { panic("basis: no assembly") }
func turnFMA(*float32, *float32, *float32, int)               { panic("basis: no assembly") }
func neighboursFMA(*float32, *float32, int, bool)             { panic("basis: no assembly") }
func halvesFMA(*float32, *float32, *float32, int, bool)       { panic("basis: no assembly") }
