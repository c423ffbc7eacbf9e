package codec

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/larderkv/larder/codec/rans"
)

// encodeUnit appends the streams of a unit to the bodies, and sets its part of
// the directory. What does not become smaller is kept raw.
func (e *Encoder) encodeUnit(h *Header, raw []byte, index int) error {
	u, d, w := h.unit(index), &e.units[index], &e.work
	rawSize := u.tokens * u.width
	var modes [L3 + 1]uint8
	for p := range w.streams {
		w.streams[p] = w.streams[p][:0]
	}
	var err error
	base := d.base
	switch base {
	case baseRepeat:
		w.streams[0] = append(w.streams[0], u.row(raw, 0)...)
	case baseLossless:
		err = e.lossless(h, &u, d, raw)
	case basePlain:
		err = e.plain(h, &u, d, raw, &modes)
	}
	if err != nil {
		return err
	}
	size := 0
	for _, s := range w.streams {
		size += len(s)
	}
	if base == baseRaw || size >= rawSize && base != baseRepeat {
		base, modes = baseRaw, [L3 + 1]uint8{}
		for p := range w.streams {
			w.streams[p] = w.streams[p][:0]
		}
		for t := range u.tokens {
			w.streams[0] = append(w.streams[0], u.row(raw, t)...)
		}
	}
	modes[0] = base
	for p := range h.passes() {
		i := p*h.Units() + index
		s := w.streams[p]
		h.modes[i], h.lengths[i] = modes[p], uint32(len(s))
		e.bodies[p] = append(e.bodies[p], s...)
		for len(e.bodies[p])%align != 0 {
			e.bodies[p] = append(e.bodies[p], 0)
		}
	}
	return nil
}

// plain makes the streams of a quantized unit. The entropy coder runs from the
// finest pass to the base with one state, which the base stores: a refinement
// costs no states of its own.
func (e *Encoder) plain(h *Header, u *unit, d *encodedUnit, raw []byte, modes *[L3 + 1]uint8) error {
	w, tables := &e.work, &h.tables[u.field]
	var st rans.State
	st.Reset()
	w.q = append(w.q[:0], d.q...)
	for p := h.passes() - 1; p > 0; p-- {
		w.spans = activeSpans(h, w, p)
		w.split(u.dims, d.classOf)
		if !slices.ContainsFunc(w.digits, func(b byte) bool { return b != 1 }) {
			modes[p] = digitsZero
			continue
		}
		was := st
		coded, err := e.coder.EncodeTernary(w.streams[p], &st, &tables.coded[p-1], w.contexts, w.digits)
		if err != nil {
			return err
		}
		if n := rawDigitsSize(len(w.digits)); n*100 <= len(coded)*102 {
			modes[p], st = digitsRaw, was
			w.streams[p] = appendRawDigits(w.streams[p], w.digits)
			continue
		}
		modes[p], w.streams[p] = digitsCoded, coded
	}
	// Symbols, and the values that have none.
	sinks := min(h.Sinks, u.tokens)
	head := w.streams[0]
	if h.Basis.transforms(u.field) {
		head = append(head, 0, 0, 0, 0, 0, 0, 0, 0)
	} else {
		head = binary.LittleEndian.AppendUint16(head, d.step)
		head = append(head, byte(d.shift), d.meanBits<<meanBitsAt, 0, 0, 0, 0)
		head = appendPacked(head, d.packedMeans(&w.row8), int(d.meanBits))
		head = appendPacked(head, d.classOf, classBits(len(tables.plain)))
	}
	for t := range sinks {
		head = append(head, u.row(raw, t)...)
	}
	escapes := w.values(tables, d.classOf)
	for i, k := 0, 0; k < escapes; i, k = i+1, k+1 {
		i += bytes.IndexByte(w.symbols[i:], 0)
		head = binary.LittleEndian.AppendUint16(head, uint16(w.q[i]))
	}
	binary.LittleEndian.PutUint32(head[4:], uint32(escapes))
	w.streams[0] = head
	return e.finish(&st, tables.plain, u, d, 3)
}

// values sets w.symbols to those of w.q, 0 where the channel's table has none,
// and returns how often that is.
func (w *workspace) values(t *fieldTables, classOf []uint8) (escapes int) {
	dims := len(classOf)
	lo, hi := resize(&w.lo, dims), resize(&w.hi, dims)
	var low, high [maxClasses]byte
	var holes [maxClasses]bool
	for c := range t.plain {
		last := 0
		for s := 255; s > 0; s-- {
			if t.plain[c].Freq(byte(s)) == 0 {
				continue
			}
			if last == 0 {
				high[c] = byte(s)
			}
			holes[c] = holes[c] || last > s+1
			last = s
		}
		low[c] = byte(max(last, 1))
	}
	for ch, c := range classOf {
		lo[ch], hi[ch] = low[c], high[c]
	}
	escapes = w.ops.Symbols(resize(&w.symbols, len(w.q)), w.q, int(t.zero), lo, hi)
	for ch, c := range classOf {
		for i := ch; holes[c] && i < len(w.symbols); i += dims {
			if s := w.symbols[i]; s != 0 && t.plain[c].Freq(s) == 0 {
				w.symbols[i] = 0
				escapes++
			}
		}
	}
	return escapes
}

// lossless makes the stream of a unit that is kept exactly.
func (e *Encoder) lossless(h *Header, u *unit, d *encodedUnit, raw []byte) error {
	w, tables := &e.work, &h.tables[u.field]
	exps, rests := resize(&w.exps, u.tokens*u.dims), resize(&w.rests, u.tokens*u.dims)
	for t := range u.tokens {
		u.dtype.split(exps[t*u.dims:(t+1)*u.dims], rests[t*u.dims:(t+1)*u.dims], u.row(raw, t))
	}
	head := w.streams[0]
	head = append(head, 0, 0, 0, 0, 0, 0, 0, 0)
	head = appendPacked(head, d.classOf, classBits(len(tables.lossless)))
	symbols, escapes := resize(&w.symbols, len(exps)), 0
	for i, v := range exps {
		s := int(v) - int(tables.exponent) + 1
		if s < 1 || s > 255 || tables.lossless[d.classOf[i%u.dims]].Freq(byte(s)) == 0 {
			s = 0
			head = append(head, v)
			escapes++
		}
		symbols[i] = byte(s)
	}
	binary.LittleEndian.PutUint32(head[4:], uint32(escapes))
	w.streams[0] = u.dtype.appendRests(head, rests)
	var st rans.State
	st.Reset()
	return e.finish(&st, tables.lossless, u, d, 3)
}

// finish codes w.symbols, which are in token order, behind what the base stream
// has, and puts the state before them if there is any.
func (e *Encoder) finish(st *rans.State, tables []rans.Table, u *unit, d *encodedUnit, flagAt int) error {
	w := &e.work
	w.order.arrange(d.classOf, tables, u.tokens)
	w.body = w.order.gather(w.ops, w.body, w.symbols, tables, u.tokens)
	body, err := e.coder.Encode(w.scratch[:0], st, w.order.runs, w.body)
	if err != nil {
		return err
	}
	w.scratch = body
	s := w.streams[0]
	if len(body) > 0 || !st.AtStart() {
		s[flagAt] |= flagState
		for len(s)%4 != 0 {
			s = append(s, 0)
		}
		s = append(st.AppendTo(s), body...)
	}
	w.streams[0] = s
	return nil
}

// flagState: the base stream has the state of the unit's entropy coder, else it
// is the one that an encoder starts with.
//
// Of a plain unit the upper half of the same byte is the width of its means.
const (
	flagState  = 1
	meanBitsAt = 4
)
