package codec

// analyse decides how a unit is coded, makes its plane, and counts what is in it.
func (e *Encoder) analyse(h *Header, params *Params, raw []byte, index int) {
	u, d := h.unit(index), &e.units[index]
	f := &params.Fields[u.field]
	stats := &e.fields[u.field]
	d.base = baseRaw
	switch {
	case u.tokens > 1 && repeats(&u, raw):
		d.base = baseRepeat
	case f.Mode == Calibrated && h.Sinks < u.tokens && e.transform(h, params, &u, raw, d):
		d.base = basePlain
		e.countPlain(h, &u, d, stats)
	case f.Mode == Plain && h.Sinks < u.tokens && finite(&u, raw, h.Sinks):
		if e.quantize(h, &u, d, raw, f.step(u.layer)) {
			d.base = basePlain
			resize(&d.classOf, u.dims)
			for c, v := range d.variance {
				d.classOf[c] = varianceClass(v)
				stats.members[d.classOf[c]]++
			}
			e.countPlain(h, &u, d, stats)
		}
	}
	exact := d.base == baseRaw && f.Mode >= Lossless
	if d.pack = exact && u.dtype == U8; exact && !d.pack {
		d.base = baseLossless
		e.exponents(&u, raw, d)
		stats.observe(d.average)
	}
}

func repeats(u *unit, raw []byte) bool {
	first := string(u.row(raw, 0))
	for t := 1; t < u.tokens; t++ {
		if string(u.row(raw, t)) != first {
			return false
		}
	}
	return true
}

// finite reports whether no element is a NaN or an infinity. Those of bf16 behind
// the sinks are found where they are quantized: there they refuse, too.
func finite(u *unit, raw []byte, sinks int) bool {
	tokens := u.tokens
	if u.dtype == BF16 {
		tokens = sinks
	}
	for t := range tokens {
		if !u.dtype.finite(u.row(raw, t)) {
			return false
		}
	}
	return true
}

// keepsValues says whether the values of a unit at the finest level are kept:
// where there are levels to split them into. Else its symbols are enough, and
// those that have none are quantized again.
func keepsValues(h *Header, u *unit) bool {
	return h.passes() > 1 || u.dtype != BF16 || h.Basis.transforms(u.field)
}

// quantize computes the steps of a unit and either its values or, in w.symbols,
// token after token, its symbols.
func (e *Encoder) quantize(h *Header, u *unit, d *encodedUnit, raw []byte, relative float32) bool {
	w, sinks := &e.work, h.Sinks
	x := e.source(u, raw, sinks)
	if !d.chooseSteps(x, relative) {
		return false
	}
	mean, inv, limit := d.inSteps(&w.mean, h.Finest)
	at := sinks * u.dims
	if !keepsValues(h, u) {
		symbols, scratch := resize(&w.symbols, u.tokens*u.dims), resize(&w.q, x.tokens*u.dims)
		for i := range symbols[:at] {
			symbols[i] = valueZero
		}
		return w.ops.QuantizeSymbolsBF16(symbols[at:], scratch, x.raw, x.stride, x.tokens, mean, inv, limit)
	}
	resize(&d.q, u.tokens*u.dims)
	clear(d.q[:at])
	return x.steps(d.q[at:], mean, inv, limit)
}

// countPlain counts digits and values by class.
func (e *Encoder) countPlain(h *Header, u *unit, d *encodedUnit, s *fieldStats) {
	w := &e.work
	if keepsValues(h, u) {
		// From the finest level up: the digits of the tokens that a pass has, then
		// the values that are left.
		w.q = append(w.q[:0], d.q...)
		for p := h.passes() - 1; p > 0; p-- {
			w.spans = activeSpans(h, w, p)
			w.split(u.dims, d.classOf)
			w.countDigits(&s.earlyDigits[p-1])
		}
		w.ops.Symbols(resize(&w.symbols, len(w.q)), w.q)
	}
	e.arrange(d, u.tokens, maxClasses, &s.early)
}

// arrange makes the plane of w.symbols, by d.classOf, and counts it.
func (e *Encoder) arrange(d *encodedUnit, tokens, n int, counts *[maxClasses]histogram) {
	w := &e.work
	classes := &w.order.classes
	classes.Build(d.classOf, n)
	plane := resize(&d.plane, classes.Size(tokens))
	w.ops.Gather(plane, w.symbols, classes, tokens)
	for c := range n {
		n := classes.Channels(c) * tokens
		w.ops.Count((*[256]uint32)(&counts[c]), plane[:n])
		plane = plane[wholeSteps(n):]
	}
}

// exponents sets d.plane to the exponents of a unit, token after token still, and
// computes the average of each channel.
func (e *Encoder) exponents(u *unit, raw []byte, d *encodedUnit) {
	w, n := &e.work, u.tokens*u.dims
	exps := resize(&d.plane, n)
	if u.dtype == BF16 {
		w.ops.SplitBF16(exps, resize(&w.symbols, n), raw[u.offset:], u.stride, u.tokens, u.dims)
	} else {
		rests := resize(&w.rests, u.dims)
		for t := range u.tokens {
			u.dtype.split(exps[t*u.dims:(t+1)*u.dims], rests, u.row(raw, t))
		}
	}
	sums := resize(&w.sums, u.dims)
	clear(sums)
	w.ops.SumBytes(sums, exps)
	resize(&d.average, u.dims)
	for c, s := range sums {
		d.average[c] = uint16((2*s + uint32(u.tokens)/2) / uint32(u.tokens))
	}
}

// countExponents sorts the channels of a lossless unit into classes, arranges its
// plane, and counts it.
func (e *Encoder) countExponents(h *Header, index int) {
	u, d, w := h.unit(index), &e.units[index], &e.work
	if d.base != baseLossless {
		return
	}
	s := &e.fields[u.field]
	resize(&d.classOf, u.dims)
	for c, v := range d.average {
		d.classOf[c] = s.losslessOf[s.exponentClass(v)]
	}
	d.plane, w.symbols = w.symbols, d.plane
	e.arrange(d, u.tokens, s.lossless, &s.exponents)
}
