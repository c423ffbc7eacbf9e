package basis

// Project sets c to the coefficients of the token rows in x, which are less the
// mean: n for each token. Each operation is rounded to float32; the elements of a
// row are added in ascending order.
//
// Tokens at a time: their sums do not wait for one another, and a row of the matrix is
// read once for all of them. work is memory that is kept from call to call, and grows.
func (t *Transform) Project(c, x []float32, work *[]float32) {
	t.project(c, x, work, hasFMA(), hasAVX512())
}

// many is how many tokens the assembly takes.
const many = 16

func (t *Transform) project(c, x []float32, work *[]float32, wide, widest bool) {
	n := len(t.Mean)
	if wide && n%8 == 0 && len(x) >= many*n {
		if len(*work) < 2*many*n {
			*work = make([]float32, 2*many*n)
		}
		// Element after element, coefficient after coefficient, of all tokens.
		in, out := (*work)[:many*n], (*work)[many*n:2*many*n]
		for ; len(x) >= many*n; x, c = x[many*n:], c[many*n:] {
			for k := range many {
				for d, v := range x[k*n : (k+1)*n] {
					in[d*many+k] = v
				}
			}
			if widest {
				projectAVX512(&out[0], &t.Matrix[:n*n][0], &in[0], n)
			} else {
				projectAVX2(&out[0], &t.Matrix[:n*n][0], &in[0], n)
			}
			for k := range many {
				for j := range c[k*n : (k+1)*n] {
					c[k*n+j] = out[j*many+k]
				}
			}
		}
	}
	for ; len(x) >= 4*n; x, c = x[4*n:], c[4*n:] {
		x0, x1, x2, x3 := x[:n], x[n:2*n], x[2*n:3*n], x[3*n:4*n]
		for j := range n {
			var s0, s1, s2, s3 float32
			for d, m := range t.Matrix[j*n : (j+1)*n] {
				s0 = float32(s0 + float32(m*x0[d]))
				s1 = float32(s1 + float32(m*x1[d]))
				s2 = float32(s2 + float32(m*x2[d]))
				s3 = float32(s3 + float32(m*x3[d]))
			}
			c[j], c[n+j], c[2*n+j], c[3*n+j] = s0, s1, s2, s3
		}
	}
	for ; len(x) >= n; x, c = x[n:], c[n:] {
		for j := range n {
			var s float32
			for d, m := range t.Matrix[j*n : (j+1)*n] {
				s = float32(s + float32(m*x[d]))
			}
			c[j] = s
		}
	}
}

// Reconstruct sets row to the mean plus the components of one token, c: one fused
// addition for each component and element, in ascending order of components. A
// component that is 0 is left out, which changes no more than the sign of a zero.
func (t *Transform) Reconstruct(row, c []float32) {
	t.reconstruct(row, c, hasFMA())
}

func (t *Transform) reconstruct(row, c []float32, wide bool) {
	n := copy(row, t.Mean)
	var some components
	for j, v := range c[:n] {
		if v == 0 {
			continue
		}
		some.at[some.n], some.factor[some.n] = j*n, v
		if some.n++; some.n == len(some.at) {
			some.addTo(row[:n], t.Matrix, wide)
		}
	}
	some.addTo(row[:n], t.Matrix, wide)
}
