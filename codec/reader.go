package codec

import (
	"bytes"
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
	"github.com/minio/crc64nvme"
)

// Reader decodes objects. It keeps the working memory of one unit from one call
// to the next.
type Reader struct {
	coder  *rans.Coder
	work   workspace
	passes [][]byte

	bases  Bases
	basis  *basis.Basis // of the object at hand
	joined []byte       // its layers, in the order of units of several heads
}

// NewReader returns a Reader that uses coder for its entropy stage.
func NewReader(coder *rans.Coder) *Reader {
	return &Reader{coder: coder, work: workspace{ops: opsOf(coder)}}
}

// Decode parses object and decodes all of it at level into dst. object may be a
// prefix that holds the level (Header.Prefix). Invalid: dst has not the size of
// shape. Corrupt: object is damaged, or is of another shape. Miss: its version
// is unknown. On an error dst holds anything.
func (r *Reader) Decode(dst, object []byte, shape *Shape, level int) error {
	h, err := Parse(object)
	if err != nil {
		return err
	}
	if int64(len(object)) > h.ObjectSize {
		return corrupt("object", "goes on behind its end").With(len(object), h.ObjectSize)
	}
	if want := h.Prefix(level); int64(len(object)) < want {
		return corrupt("object", "ends before the level").With(len(object), want)
	}
	passes := r.passes[:0]
	for p := range h.passOf(level) + 1 {
		at, n := h.Range(p, 0, h.Layers)
		passes = append(passes, object[at:at+n])
	}
	err = r.DecodeLayers(dst, h, shape, passes, 0, shape.Layers, level)
	clear(passes) // they are the caller's
	r.passes = passes
	return err
}

// DecodeLayers decodes layers [low, high) at level into dst, which has just
// these. passes has the bytes of Header.Range(pass, low, high) for each pass
// that the level needs. Errors are those of Decode.
func (r *Reader) DecodeLayers(dst []byte, h *Header, shape *Shape, passes [][]byte, low, high, level int) error {
	if err := shape.Validate(); err != nil {
		return err
	}
	if !shape.equal(h.Uncoded()) {
		return corrupt("shape", "not the expected one")
	}
	if low < 0 || high > h.Layers || low >= high {
		return invalid("layers", "not in the object").With(high, h.Layers)
	}
	if n := (high - low) * h.LayerSize(); len(dst) != n {
		return invalid("dst", "its size is not that of the layers").With(len(dst), n)
	}
	if err := r.findBasis(h); err != nil {
		return err
	}
	out := dst
	if h.joined() > 1 {
		out = resize(&r.joined, len(dst))
	}
	last := h.passOf(level)
	if len(passes) != last+1 {
		return invalid("passes", "number").With(len(passes), last+1)
	}
	var starts [L3 + 1]int64
	for p := range passes {
		at, n := h.Range(p, low, high)
		if int64(len(passes[p])) != n {
			return invalid("passes", "pass %d has another size", p).With(len(passes[p]), n)
		}
		starts[p] = at
	}
	per := len(h.Fields) * h.Heads
	walk := h.Plan.Walk()
	walk.Skip(low * per * h.Tokens)
	for i := low * per; i < high*per; i++ {
		r.work.runs = walk.Next(r.work.runs[:0], h.Tokens)
		u := h.unit(i)
		u.offset -= low * h.LayerSize()
		if i%per == 0 {
			if err := verify(h, passes, &starts, u.layer); err != nil {
				return err
			}
		}
		for p := range passes {
			k := p*h.Units() + i
			s := passes[p][h.starts[k]-starts[p]:]
			n := int64(h.lengths[k])
			for _, z := range s[n:padded(n)] {
				if z != 0 {
					return corrupt("stream", "padding of unit %d pass %d is not zero", i, p)
				}
			}
			r.work.streams[p] = s[:n:n]
		}
		if err := r.unit(out, h, &u, last); err != nil {
			return fault.Wrap(fault.Corrupt, err, "object.stream", "unit %d", i)
		}
	}
	for p := range r.work.streams { // they are the caller's
		r.work.streams[p] = nil
	}
	if h.joined() > 1 {
		regroup(dst, out, shape, h.joined(), true)
	}
	return nil
}

// verify checks the bytes of a layer in all passes, which begin at starts.
func verify(h *Header, passes [][]byte, starts *[L3 + 1]int64, layer int) error {
	for p := range passes {
		at, n := h.Range(p, layer, layer+1)
		if crc64nvme.Checksum(passes[p][at-starts[p]:][:n]) != h.sums[p*h.Layers+layer] {
			return corrupt("stream", "layer %d pass %d does not match its checksum", layer, p)
		}
	}
	return nil
}

// unit decodes one unit from w.streams.
func (r *Reader) unit(dst []byte, h *Header, u *unit, last int) error {
	w := &r.work
	mode := h.modes[u.index]
	if mode != basePlain {
		for p := 1; p < h.passes(); p++ {
			if h.modes[p*h.Units()+u.index] != digitsZero {
				return corrupt("modes", "an exact unit has refinements")
			}
		}
	}
	b := w.streams[0]
	switch mode {
	case baseRaw:
		if len(b) != u.tokens*u.width {
			return corrupt("raw", "wrong size").With(len(b), u.tokens*u.width)
		}
		for t := range u.tokens {
			copy(u.row(dst, t), b[t*u.width:])
		}
		return nil
	case baseRepeat:
		if len(b) != u.width {
			return corrupt("repeat", "wrong size").With(len(b), u.width)
		}
		for t := range u.tokens {
			copy(u.row(dst, t), b)
		}
		return nil
	case baseLossless:
		return r.lossless(dst, h, u)
	}
	return r.plain(dst, h, u, last)
}

// cut takes n bytes from the front of *b.
func cut(b *[]byte, n int) ([]byte, error) {
	if n > len(*b) {
		return nil, corrupt("base", "ends early").With(len(*b), n)
	}
	front := (*b)[:n:n]
	*b = (*b)[n:]
	return front, nil
}

// readState reads the state of a unit, if it is stored, behind padding. size is
// that of the stream whose rest is *b.
func readState(st *rans.State, flags byte, b *[]byte, size int) error {
	st.Reset()
	if flags&^flagState != 0 {
		return corrupt("flags", "unknown").With(flags, flagState)
	}
	if flags == 0 {
		return nil
	}
	pad, err := cut(b, -(size-len(*b))&3)
	if err != nil {
		return err
	}
	for _, z := range pad {
		if z != 0 {
			return corrupt("base", "padding is not zero")
		}
	}
	if err := st.Read(*b); err != nil {
		return err
	}
	*b = (*b)[rans.StateSize:]
	return nil
}

// symbols decodes what is left of a base stream into w.symbols, in token order,
// and returns how many of them are escapes.
func (r *Reader) symbols(st *rans.State, tables []rans.Table, u *unit, body []byte) (int, error) {
	w := &r.work
	w.order.arrange(w.classOf, tables, u.tokens)
	if err := r.coder.Decode(resize(&w.body, w.order.symbols), st, w.order.runs, body); err != nil {
		return 0, err
	}
	w.ops.Scatter(resize(&w.symbols, u.tokens*u.dims), w.body, &w.order.classes, u.tokens)
	return bytes.Count(w.symbols, []byte{0}), nil
}

func (r *Reader) lossless(dst []byte, h *Header, u *unit) error {
	w, t := &r.work, &h.tables[u.field]
	n := u.tokens * u.dims
	if len(t.lossless) == 0 {
		return corrupt("classes", "no tables for a lossless unit")
	}
	b := w.streams[0]
	size := len(b)
	head, err := cut(&b, 8)
	if err != nil {
		return err
	}
	if head[0]|head[1]|head[2] != 0 {
		return corrupt("base", "reserved bytes are not zero")
	}
	if err := readClassMap(resize(&w.classOf, u.dims), &b, len(t.lossless)); err != nil {
		return err
	}
	escapes, err := cut(&b, int(min(binary.LittleEndian.Uint32(head[4:]), 1<<30)))
	if err != nil {
		return err
	}
	plane, err := cut(&b, u.dtype.restSize(n))
	if err != nil {
		return err
	}
	if err := u.dtype.readRests(resize(&w.rests, n), plane); err != nil {
		return err
	}
	var st rans.State
	if err := readState(&st, head[3], &b, size); err != nil {
		return err
	}
	found, err := r.symbols(&st, t.lossless, u, b)
	if err != nil {
		return err
	}
	if found != len(escapes) || !st.AtStart() {
		return corrupt("base", "escapes or final state do not fit").With(found, len(escapes))
	}
	top := 1<<dtypes[u.dtype].exp - 1
	exps := resize(&w.exps, n)
	for i, s := range w.symbols {
		v := int(s) - 1 + int(t.exponent)
		if s == 0 {
			v, escapes = int(escapes[0]), escapes[1:]
		}
		if v > top {
			return corrupt("exponent", "out of range").With(v, top)
		}
		exps[i] = uint8(v)
	}
	for k := range u.tokens {
		u.dtype.join(u.row(dst, k), exps[k*u.dims:(k+1)*u.dims], w.rests[k*u.dims:(k+1)*u.dims])
	}
	return nil
}

func (r *Reader) plain(dst []byte, h *Header, u *unit, last int) error {
	if h.Basis.transforms(u.field) {
		return r.calibrated(dst, h, u, last)
	}
	w, t := &r.work, &h.tables[u.field]
	if len(t.plain) == 0 {
		return corrupt("classes", "no tables for a plain unit")
	}
	b := w.streams[0]
	head, err := cut(&b, 8)
	if err != nil {
		return err
	}
	step, shift := binary.LittleEndian.Uint16(head), int8(head[2])
	if s := fromBF16(step); !(s >= pow2(minStepExp) && s <= pow2(maxStepExp)) || shift < minShift || shift > maxShift {
		return corrupt("step", "out of range").With(s, shift)
	}
	if err := readMeans(resize(&w.means, u.dims), &w.row8, &b, head[3]>>meanBitsAt); err != nil {
		return err
	}
	if err := readClassMap(resize(&w.classOf, u.dims), &b, len(t.plain)); err != nil {
		return err
	}
	var st rans.State
	exact, escapes, err := r.base(h, u, &st, head[3]&(1<<meanBitsAt-1), binary.LittleEndian.Uint32(head[4:]), b)
	if err != nil {
		return err
	}
	if last == 0 && u.dtype == BF16 {
		err = r.direct(dst, h, u, step, shift, escapes)
	} else if err = r.refined(h, u, &st, escapes, last); err == nil {
		w.reconstruct(dst, u, step, shift, h.Coarsest-last)
	}
	if err != nil {
		return err
	}
	if last == h.passes()-1 && !st.AtStart() {
		return corrupt("state", "is not where an encoder starts")
	}
	for k := range len(exact) / u.width {
		copy(u.row(dst, k), exact[k*u.width:])
	}
	return nil
}

// base reads what follows the class map of a base, b: the exact rows, the
// escapes, and the symbols, which it leaves in w.symbols.
func (r *Reader) base(h *Header, u *unit, st *rans.State, flags byte, count uint32, b []byte) (exact, escapes []byte, err error) {
	if exact, err = cut(&b, min(h.Sinks, u.tokens)*u.width); err != nil {
		return nil, nil, err
	}
	if escapes, err = cut(&b, 2*int(min(count, 1<<30))); err != nil {
		return nil, nil, err
	}
	if err := readState(st, flags, &b, len(r.work.streams[0])); err != nil {
		return nil, nil, err
	}
	found, err := r.symbols(st, h.tables[u.field].plain, u, b)
	if err != nil {
		return nil, nil, err
	}
	if 2*found != len(escapes) {
		return nil, nil, corrupt("escapes", "their number does not fit").With(found, len(escapes)/2)
	}
	return exact, escapes, nil
}

// refined sets w.q to the values of w.symbols and of the passes up to last.
func (r *Reader) refined(h *Header, u *unit, st *rans.State, escapes []byte, last int) error {
	w := &r.work
	w.ops.Values(resize(&w.q, len(w.symbols)), w.symbols, int(h.tables[u.field].zero))
	for i := 0; len(escapes) > 0; i++ {
		i += bytes.IndexByte(w.symbols[i:], 0)
		v, err := escape(&escapes, h)
		if err != nil {
			return err
		}
		w.q[i] = v
	}
	for p := 1; p <= last; p++ {
		if err := r.refine(h, u, st, p); err != nil {
			return err
		}
	}
	return nil
}

// direct writes the rows of w.symbols alone, in bf16: the values that have no
// symbol are few, and are put into what the others have become.
func (r *Reader) direct(dst []byte, h *Header, u *unit, step uint16, shift int8, escapes []byte) error {
	w := &r.work
	mean := w.unpackMeans(step, shift)
	s := float32(fromBF16(step) * float32(pow3[h.Coarsest]))
	w.ops.ReconstructSymbolsBF16(dst[u.offset:], u.stride, u.tokens, w.symbols, int(h.tables[u.field].zero), mean, s)
	for i := 0; len(escapes) > 0; i++ {
		i += bytes.IndexByte(w.symbols[i:], 0)
		v, err := escape(&escapes, h)
		if err != nil {
			return err
		}
		t, c := i/u.dims, i%u.dims
		binary.LittleEndian.PutUint16(u.row(dst, t)[2*c:], bf16(float32(s*float32(v))+mean[c]))
	}
	return nil
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

// refine applies pass p.
func (r *Reader) refine(h *Header, u *unit, st *rans.State, p int) error {
	w := &r.work
	mode := h.modes[p*h.Units()+u.index]
	w.spans = activeSpans(h, w, p)
	n := spanTokens(w.spans) * u.dims
	resize(&w.digits, n)
	switch mode {
	case digitsZero:
		for i := range w.digits {
			w.digits[i] = 1
		}
	case digitsRaw:
		if len(w.streams[p]) != rawDigitsSize(n) {
			return corrupt("digits", "wrong size").With(len(w.streams[p]), rawDigitsSize(n))
		}
		if err := readRawDigits(w.digits, w.streams[p]); err != nil {
			return err
		}
	case digitsCoded:
		w.findContexts(u.dims, w.classOf)
		if err := r.coder.DecodeTernary(w.digits, st, &h.tables[u.field].coded[p-1], w.contexts, w.streams[p]); err != nil {
			return err
		}
	}
	w.merge(u.dims)
	return nil
}
