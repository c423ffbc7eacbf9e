package calibrate

import "math"

// eigen returns the eigenvalues of the symmetric n x n matrix a in descending
// order, and an orthonormal eigenvector for each as a row of z; the entry of
// largest magnitude of each is positive. a is overwritten.
//
// Householder reflections to a tridiagonal matrix, then the implicit QL method
// (Golub, Van Loan: Matrix Computations, 8.3): n^3 where Jacobi's method needs
// many times that.
func eigen(a []float64, n int) (values, z []float64) {
	values, off := make([]float64, n), make([]float64, n)
	z = tridiagonal(a, values, off)
	diagonalize(values, off, z)
	order := make([]int, n)
	for i := range order {
		order[i] = i
		for k := i; k > 0 && values[order[k]] > values[order[k-1]]; k-- {
			order[k], order[k-1] = order[k-1], order[k]
		}
	}
	sorted, rows := make([]float64, n), make([]float64, 0, n*n)
	for i, k := range order {
		sorted[i] = values[k]
		row := z[k*n : (k+1)*n]
		most := 0.0
		for _, v := range row {
			if math.Abs(v) > math.Abs(most) {
				most = v
			}
		}
		for _, v := range row {
			rows = append(rows, math.Copysign(1, most)*v)
		}
	}
	return sorted, rows
}

// tridiagonal sets diagonal, and off[i] to the entry between i and i + 1, of q a
// q^T, and returns q.
func tridiagonal(a, diagonal, off []float64) (q []float64) {
	n := len(diagonal)
	// Row k of a keeps the k-th reflection, as a vector on k + 1.., and beta[k]
	// its factor.
	beta, w := make([]float64, n), make([]float64, n)
	for k := range n - 1 {
		v := a[k*n+k+1 : (k+1)*n] // the matrix is symmetric: a row is a column
		norm := math.Sqrt(dot(v, v))
		diagonal[k], off[k] = a[k*n+k], -math.Copysign(norm, v[0])
		if norm == 0 {
			continue
		}
		v[0] -= off[k]
		beta[k] = 2 / dot(v, v)
		p := w[:len(v)]
		for i := range v {
			p[i] = beta[k] * dot(a[(k+1+i)*n+k+1:(k+2+i)*n], v)
		}
		half := beta[k] / 2 * dot(p, v)
		for i := range p {
			p[i] -= half * v[i]
		}
		for i := range v {
			row := a[(k+1+i)*n+k+1 : (k+2+i)*n]
			vi, pi := v[i], p[i]
			for j := range row {
				row[j] -= vi*p[j] + pi*v[j]
			}
		}
	}
	diagonal[n-1] = a[n*n-1]
	q = make([]float64, n*n)
	for i := range n {
		q[i*n+i] = 1
	}
	for k := n - 2; k >= 0; k-- {
		v := a[k*n+k+1 : (k+1)*n]
		for i := k + 1; i < n && beta[k] != 0; i++ {
			row := q[i*n+k+1 : (i+1)*n]
			s := beta[k] * dot(row, v)
			for j := range row {
				row[j] -= s * v[j]
			}
		}
	}
	return q
}

// diagonalize turns the tridiagonal matrix into eigenvalues, and rows of z into
// their vectors.
func diagonalize(d, off, z []float64) {
	n := len(d)
	for low := range d {
		// Three rounds are usual; a matrix of finite numbers never needs many.
		for range 100 {
			m := low
			for m < n-1 && math.Abs(off[m]) > 0x1p-52*(math.Abs(d[m])+math.Abs(d[m+1])) {
				m++
			}
			if m == low {
				break
			}
			sweep(d, off, z, low, m)
		}
	}
}

// sweep is one implicit QL step with Wilkinson's shift on rows low..m.
func sweep(d, off, z []float64, low, m int) {
	n := len(d)
	g := (d[low+1] - d[low]) / (2 * off[low])
	g = d[m] - d[low] + off[low]/(g+math.Copysign(math.Hypot(g, 1), g))
	s, c, p := 1.0, 1.0, 0.0
	for i := m - 1; i >= low; i-- {
		f, b := s*off[i], c*off[i]
		r := math.Hypot(f, g)
		off[i+1] = r
		if r == 0 {
			d[i+1] -= p
			off[m] = 0
			return
		}
		s, c = f/r, g/r
		g = d[i+1] - p
		r = (d[i]-g)*s + 2*c*b
		p = s * r
		d[i+1] = g + p
		g = c*r - b
		x, y := z[i*n:(i+1)*n], z[(i+1)*n:(i+2)*n]
		for k, v := range y {
			y[k] = s*x[k] + c*v
			x[k] = c*x[k] - s*v
		}
	}
	d[low] -= p
	off[low], off[m] = g, 0
}

func dot(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	b = b[:len(a)]
	for ; len(a) >= 4; a, b = a[4:], b[4:] {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
	}
	for i, v := range a {
		s0 += v * b[i]
	}
	return s0 + s1 + (s2 + s3)
}
