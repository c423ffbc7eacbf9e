package basis

// components are some rows of a matrix and what each is multiplied by.
type components struct {
	n      int
	at     [64]int // the first element of each
	factor [64]float32
}

// addTo adds the rows to sums, which has as many elements as a row, in the order
// in which they were put in: FMA for each of them. wide says that the CPU may do
// it, which gives the same.
func (r *components) addTo(sums, m []float32, wide bool) {
	columns := 0
	if blocks := len(sums) / 8; wide && blocks > 0 && r.n > 0 {
		columns = blocks * 8
		_ = m[r.at[r.n-1]+columns-1] // they ascend
		addRowsFMA(&sums[0], &m[0], &r.at[0], &r.factor[0], r.n, blocks)
	}
	if columns < len(sums) {
		for i, at := range r.at[:r.n] {
			addRow(sums[columns:], r.factor[i], m[at+columns:at+len(sums)])
		}
	}
	r.n = 0
}
