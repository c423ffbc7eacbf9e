package codec

// transform quantizes the components of a transformed unit. false: it has values
// that are not finite, or that the steps do not span; keep it exactly.
//
// Operations are those of FORMAT.md, section Encoding, each rounded to float32.
func (e *Encoder) transform(h *Header, params *Params, u *unit, raw []byte, d *encodedUnit) bool {
	b, w := params.Calibration.Basis, &e.work
	t, turns := w.transformOf(b, h, u)
	tokens, n := u.tokens-h.Sinks, u.dims
	x := resize(&e.x, 2*tokens*n)
	x, c := x[:tokens*n], x[tokens*n:]
	for i := range tokens {
		row := x[i*n : (i+1)*n]
		if !u.dtype.finite(u.row(raw, h.Sinks+i)) {
			return false
		}
		u.dtype.load(row, u.row(raw, h.Sinks+i))
		if turns {
			b.Turn(resize(&w.turn, b.Rope.Dims), h.Basis.Position+h.Sinks+i)
			b.Unrotate(row, w.turn, n/h.Basis.Joined)
		}
		for k, m := range t.Mean {
			row[k] = float32(row[k] - m)
		}
	}
	t.Project(c, x, &w.projecting)
	inv := resize(&w.mean, n)
	for j, s := range w.steps {
		inv[j] = 1 / float32(s*float32(pow3[h.Finest]))
	}
	q := resize(&d.q, u.tokens*n)
	clear(q[:h.Sinks*n])
	q = q[h.Sinks*n:]
	limit := limitOf(h.Finest)
	for i := range tokens {
		for j, v := range c[i*n : (i+1)*n] {
			r := float32(v * inv[j])
			if !(abs(r) < limit) {
				return false
			}
			q[i*n+j] = int16(roundEven(r))
		}
	}
	copy(resize(&d.classOf, n), t.Classes)
	return true
}
