//go:build !amd64

package rows

func hasAVX2() bool { return false }

func scatterAVX2(*byte, int, *byte, *int, int)                        { panic("rows: no assembly") }
func gatherAVX2(*byte, *int, *byte, int, int)                         { panic("rows: no assembly") }
func reconstructAVX2(*byte, int, *int16, *float32, int, int, float32) { panic("rows: no assembly") }
func reconstructSymbolsAVX2(*byte, int, *byte, *float32, int, int, int, float32) int {
	panic("rows: no assembly")
}
func statsAVX2(*float32, *float32, *byte, int, int, int) { panic("rows: no assembly") }
func quantizeAVX2(*int16, *byte, int, *float32, int, int, float32, float32) uint64 {
	panic("rows: no assembly")
}
func quantizeSymbolsAVX2(*byte, *byte, int, *float32, int, int, float32) uint64 {
	panic("rows: no assembly")
}
func splitBF16AVX2(*byte, *byte, *byte, int, int, int) { panic("rows: no assembly") }
func joinBF16AVX2(*byte, int, *byte, *byte, int, int, int) (int, byte) {
	panic("rows: no assembly")
}
func sumBytesAVX2(*uint32, *byte, int, int) { panic("rows: no assembly") }
func meanCostAVX2(*float32, *float32, int, float32, float32, float32, float32) uint64 {
	panic("rows: no assembly")
}
func outsideAVX2(*uint64, *byte, int, *Set) int { panic("rows: no assembly") }
func zerosAVX2(*uint64, *byte, int)             { panic("rows: no assembly") }
