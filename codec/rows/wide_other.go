//go:build !amd64

package rows

// There is no assembly: nothing of this is called.

func hasWide() bool { return false }
func hasBF16() bool { return false }

func scatterAVX512(*byte, int, *byte, *int, int)                        { panic("rows: no assembly") }
func gatherAVX512(*byte, *int, *byte, int, int)                         { panic("rows: no assembly") }
func valuesAVX512(*int16, *byte, int, int) int                          { panic("rows: no assembly") }
func symbolsAVX512(*byte, *int16, int)                                  { panic("rows: no assembly") }
func contextsAVX512(*byte, *int16, *byte, int, int)                     { panic("rows: no assembly") }
func mergeAVX512(*int16, *byte, int)                                    { panic("rows: no assembly") }
func splitAVX512(*int16, *byte, *byte, *byte, int, int)                 { panic("rows: no assembly") }
func reconstructAVX512(*byte, int, *int16, *float32, int, int, float32) { panic("rows: no assembly") }
func reconstructSymbolsAVX512(*byte, int, *byte, *float32, int, int, int, float32) int {
	panic("rows: no assembly")
}
func rangeAVX512(*byte, int) (low, high int)                       { panic("rows: no assembly") }
func countAVX512(*[countWidth]uint32, *byte, int, *byte, int, int) { panic("rows: no assembly") }
func statsAVX512(*float32, *float32, *byte, int, int, int)         { panic("rows: no assembly") }
func quantizeAVX512(*int16, *byte, int, *float32, int, int, float32, float32) uint64 {
	panic("rows: no assembly")
}
func reconstructSymbolsBF16(*byte, int, *byte, *float32, int, int, int, float32) int {
	panic("rows: no assembly")
}
func quantizeSymbolsAVX512(*byte, *byte, int, *float32, int, int, float32) uint64 {
	panic("rows: no assembly")
}
func splitBF16AVX512(*byte, *byte, *byte, int, int, int) { panic("rows: no assembly") }
func joinBF16AVX512(*byte, int, *byte, *byte, int, int, int) (int, byte) {
	panic("rows: no assembly")
}
func sumBytesAVX512(*uint32, *byte, int, int)     { panic("rows: no assembly") }
func outsideAVX512(*uint64, *byte, int, *Set) int { panic("rows: no assembly") }
func meanCostAVX512(*float32, *float32, int, float32, float32, float32, float32) uint64 {
	panic("rows: no assembly")
}
func pairsAVX512(*byte, *byte, int)   { panic("rows: no assembly") }
func zerosAVX512(*uint64, *byte, int) { panic("rows: no assembly") }
