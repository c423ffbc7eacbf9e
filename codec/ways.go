package codec

// Ways counts units by how their base is stored: raw, repeat, lossless, zstd (opaque
// bytes), plain, calibrated.
func (h *Header) Ways() map[string]int {
	ways := map[string]int{}
	for i, mode := range h.modes[:h.Units()] {
		u := h.unit(i)
		way := [...]string{baseRaw: "raw", baseRepeat: "repeat", baseLossless: "lossless", basePlain: "plain"}[mode]
		switch {
		case mode == baseLossless && u.dtype == U8:
			way = "zstd"
		case mode == basePlain && h.Basis.transforms(u.field):
			way = "calibrated"
		}
		ways[way]++
	}
	return ways
}
