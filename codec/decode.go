package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/larderkv/larder/codec/rans"
)

// decode decodes opened units, one or two, up to a pass, and writes their rows.
func (r *Reader) decode(dst []byte, h *Header, units []decoding, last int) error {
	if err := r.decodeBases(dst, units, last); err != nil {
		return err
	}
	for i := range units {
		if d := &units[i]; d.mode == basePlain && !d.direct(last) {
			if err := d.values(h); err != nil {
				return err
			}
		}
	}
	for p := 1; p <= last; p++ {
		if err := r.refine(h, units, p); err != nil {
			return err
		}
	}
	for i := range units {
		d := &units[i]
		var err error
		if d.mode == baseLossless {
			err = d.writeLossless(dst, h)
		} else {
			err = r.writePlain(d, dst, h, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeBases decodes the bodies of the bases into arranged. The rows of dst come
// next, unless there are refinements.
func (r *Reader) decodeBases(dst []byte, units []decoding, last int) error {
	var bodies [2]rans.Body
	for i := range units {
		d, u := &units[i], &units[i].u
		bodies[i] = rans.Body{Dst: d.arranged, State: &d.state, Runs: d.order.runs, Body: d.coded}
		if u.width%128 == 0 && (d.direct(last) || d.mode == baseLossless) {
			bodies[i].Next = rans.Rows{Memory: dst[u.offset:], Stride: u.stride, Width: u.width}
		}
	}
	if len(units) == 2 {
		return r.coder.DecodePair(&bodies[0], &bodies[1])
	}
	return r.coder.Decode(bodies[0].Dst, bodies[0].State, bodies[0].Runs, bodies[0].Body)
}

// inTokens sets d.symbols to those of all tokens.
func (d *decoding) inTokens() {
	d.ops.Scatter(resize(&d.symbols, d.u.tokens*d.u.dims), d.arranged, &d.order.classes, d.u.tokens)
}

// tile is how many tokens are brought into order, and written, at once: their
// symbols stay in the first-level cache.
const tile = 64

// tiles calls write for some tokens after others, with their number and symbols,
// where in dst their rows begin and which element they begin with.
func (d *decoding) tiles(dst []byte, write func(n int, symbols, dst []byte, first int) error) error {
	u := &d.u
	for t := 0; t < u.tokens; t += tile {
		n := min(tile, u.tokens-t)
		symbols := resize(&d.symbols, n*u.dims)
		d.ops.ScatterTokens(symbols, d.arranged, &d.order.classes, u.tokens, t, n)
		if err := write(n, symbols, dst[u.offset+t*u.stride:], t*u.dims); err != nil {
			return err
		}
	}
	return nil
}

// zeros returns the places of the symbols that are 0, of which there are n, tokens
// first.
func (d *decoding) zeros(symbols []byte, n int) []place {
	masks, list := resize(&d.masks, (len(symbols)+63)/64), resize(&d.places, n)
	if n == 0 {
		return list
	}
	d.ops.Zeros(masks, symbols)
	token, row, k := 0, 0, 0 // row is the first symbol of token
	for w, mask := range masks {
		for ; mask != 0; mask &= mask - 1 {
			i := w*64 + bits.TrailingZeros64(mask)
			for ; i >= row+d.u.dims; row += d.u.dims {
				token++
			}
			list[k] = place{int32(token), int32(i - row)}
			k++
		}
	}
	return list
}

// refine applies pass p to the plain ones of the units.
func (r *Reader) refine(h *Header, units []decoding, p int) error {
	var bodies [2]rans.TernaryBody
	n := 0
	for i := range units {
		d := &units[i]
		if d.mode != basePlain {
			continue
		}
		coded, err := d.digitsOf(h, p)
		if err != nil {
			return err
		}
		if coded {
			bodies[n] = rans.TernaryBody{Dst: d.digits, Contexts: d.contexts, State: &d.state, Table: &h.tables[d.u.field].coded[p-1], Body: d.streams[p]}
			n++
		}
	}
	var err error
	switch b := &bodies[0]; n {
	case 1:
		err = r.coder.DecodeTernary(b.Dst, b.State, b.Table, b.Contexts, b.Body)
	case 2:
		err = r.coder.DecodeTernaryPair(b, &bodies[1])
	}
	if err != nil {
		return err
	}
	for i := range units {
		if d := &units[i]; d.mode == basePlain {
			d.merge(d.u.dims)
		}
	}
	return nil
}

// digitsOf sets d.digits to those of pass p where they are not coded, else
// d.contexts to their contexts.
func (d *decoding) digitsOf(h *Header, p int) (coded bool, err error) {
	d.spans = activeSpans(h, &d.workspace, p)
	n := spanTokens(d.spans) * d.u.dims
	resize(&d.digits, n)
	switch h.modes[p*h.Units()+d.u.index] {
	case digitsZero:
		for i := range d.digits {
			d.digits[i] = 1
		}
	case digitsRaw:
		if len(d.streams[p]) != rawDigitsSize(n) {
			return false, corrupt("digits", "wrong size").With(len(d.streams[p]), rawDigitsSize(n))
		}
		return false, readRawDigits(d.digits, d.streams[p])
	case digitsCoded:
		d.findContexts(d.u.dims, d.classOf)
		return true, nil
	}
	return false, nil
}

// direct says whether rows are written from symbols: bf16 without refinements.
func (d *decoding) direct(last int) bool { return last == 0 && d.u.dtype == BF16 && d.transform == nil }

// values sets d.q from d.symbols and the escapes.
func (d *decoding) values(h *Header) error {
	d.inTokens()
	if n := d.ops.Values(resize(&d.q, len(d.symbols)), d.symbols, int(h.tables[d.u.field].zero)); 2*n != len(d.escapes) {
		return corrupt("escapes", "their number does not fit").With(n, len(d.escapes)/2)
	}
	for i, left := 0, d.escapes; len(left) > 0; i++ {
		i += bytes.IndexByte(d.symbols[i:], 0)
		v, err := escape(&left, h)
		if err != nil {
			return err
		}
		d.q[i] = v
	}
	return nil
}

// writePlain writes the rows at the level of pass last.
func (r *Reader) writePlain(d *decoding, dst []byte, h *Header, last int) error {
	switch {
	case d.transform != nil:
		r.writeComponents(d, dst, h, last)
	case d.direct(last):
		if err := d.writeSymbols(dst, h); err != nil {
			return err
		}
	default:
		d.reconstruct(dst, &d.u, d.step, d.shift, h.Coarsest-last)
	}
	if last == h.passes()-1 && !d.state.AtStart() {
		return corrupt("state", "is not where an encoder starts")
	}
	for t := range min(h.Sinks, d.u.tokens) {
		copy(d.u.row(dst, t), d.exact[t*d.u.width:])
	}
	return nil
}

// writeSymbols writes the rows of symbols alone: the values that have none are
// few, and are put into what the others have become.
func (d *decoding) writeSymbols(dst []byte, h *Header) error {
	u, mean, left := &d.u, d.unpackMeans(d.step, d.shift), d.escapes
	s, zero := float32(fromBF16(d.step)*float32(pow3[h.Coarsest])), int(h.tables[u.field].zero)
	err := d.tiles(dst, func(n int, symbols, rows []byte, _ int) error {
		zeros := d.ops.ReconstructSymbolsBF16(rows, u.stride, n, symbols, zero, mean, s)
		if 2*zeros > len(left) {
			return corrupt("escapes", "too few").With(len(d.escapes)/2, nil)
		}
		for _, p := range d.zeros(symbols, zeros) {
			v, err := escape(&left, h)
			if err != nil {
				return err
			}
			binary.LittleEndian.PutUint16(rows[int(p.token)*u.stride+2*int(p.channel):], bf16(float32(s*float32(v))+mean[p.channel]))
		}
		return nil
	})
	if err == nil && len(left) > 0 {
		return corrupt("escapes", "too many").With(len(d.escapes)/2, nil)
	}
	return err
}

// escape takes a value from the front of *b.
func escape(b *[]byte, h *Header) (int16, error) {
	v, limit := int16(binary.LittleEndian.Uint16(*b)), maxValue/pow3[h.Coarsest]
	*b = (*b)[2:]
	if int32(v) > limit || int32(v) < -limit {
		return 0, corrupt("escapes", "value out of range").With(v, limit)
	}
	return v, nil
}

// writeLossless writes the rows of a lossless unit, which has no passes.
func (d *decoding) writeLossless(dst []byte, h *Header) error {
	if !d.state.AtStart() {
		return corrupt("state", "is not where an encoder starts")
	}
	u, first := &d.u, int(h.tables[d.u.field].exponent)
	top := 1<<dtypes[u.dtype].exp - 1
	for _, v := range d.escapes {
		if int(v) > top {
			return corrupt("exponent", "out of range").With(v, top)
		}
	}
	if u.dtype != BF16 {
		return d.joinRows(dst, first, top)
	}
	left := d.escapes
	err := d.tiles(dst, func(n int, symbols, rows []byte, at int) error {
		rest := d.rest[at : at+len(symbols)]
		zeros, greatest := d.ops.JoinBF16(rows, u.stride, n, u.dims, symbols, rest, first)
		if v := int(greatest) - 1 + first; v > top {
			return corrupt("exponent", "out of range").With(v, top)
		}
		if zeros > len(left) {
			return corrupt("escapes", "too few").With(len(d.escapes), nil)
		}
		for i, p := range d.zeros(symbols, zeros) {
			t, c := int(p.token), int(p.channel)
			r := uint16(rest[t*u.dims+c])
			binary.LittleEndian.PutUint16(rows[t*u.stride+2*c:], r&0x7f|uint16(left[i])<<7|r>>7<<15)
		}
		left = left[zeros:]
		return nil
	})
	if err == nil && len(left) > 0 {
		return corrupt("escapes", "too many").With(len(d.escapes), nil)
	}
	return err
}

// joinRows is what is left of writeLossless where the type is not bf16.
func (d *decoding) joinRows(dst []byte, first, top int) error {
	u := &d.u
	d.inTokens()
	if err := u.dtype.readRests(resize(&d.rests, len(d.symbols)), d.rest); err != nil {
		return err
	}
	if n := bytes.Count(d.symbols, []byte{0}); n != len(d.escapes) {
		return corrupt("escapes", "their number does not fit").With(n, len(d.escapes))
	}
	exps, left := resize(&d.exps, len(d.symbols)), d.escapes
	for i, s := range d.symbols {
		v := int(s) - 1 + first
		if s == 0 {
			v, left = int(left[0]), left[1:]
		}
		if v > top {
			return corrupt("exponent", "out of range").With(v, top)
		}
		exps[i] = uint8(v)
	}
	for t := range u.tokens {
		u.dtype.join(u.row(dst, t), exps[t*u.dims:(t+1)*u.dims], d.rests[t*u.dims:(t+1)*u.dims])
	}
	return nil
}
