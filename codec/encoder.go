package codec

import (
	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
	"github.com/minio/crc64nvme"
)

// Encoder makes objects. It keeps its working memory from one call to the next:
// about two bytes for each quantized element of an object, and its coded bytes.
type Encoder struct {
	coder *rans.Coder

	units  []encodedUnit
	fields []fieldStats
	// bodies has the streams of each pass, each filled up to align.
	bodies [][]byte
	work   workspace
	// x is what from reads.
	x    []float32
	from source
	// joined has the raw bytes in the order of units of several heads.
	joined []byte
}

// workspace is what coding one unit needs, in both directions.
type workspace struct {
	exps, symbols, digits, contexts []byte
	rests                           []uint32
	q                               []int16
	runs                            []plan.Run
	spans                           []plan.Span
	order                           order
	body, scratch                   []byte
	streams                         [L3 + 1][]byte
	classOf, row8                   []uint8
	row, mean, steps, turn          []float32
	means                           []int8
	class2, lo, hi                  []byte

	ops *rows.Ops
}

// encodedUnit is what the first pass finds out about a unit.
type encodedUnit struct {
	base uint8
	quantized
	// average exponent of each channel in halves; only for baseLossless.
	average []uint16
	classOf []uint8
}

// NewEncoder returns an Encoder that uses coder for its entropy stage.
func NewEncoder(coder *rans.Coder) *Encoder {
	return &Encoder{coder: coder, work: workspace{ops: opsOf(coder)}}
}

// opsOf returns the row arithmetic that goes with a coder: the reference beside
// the reference.
func opsOf(coder *rans.Coder) *rows.Ops {
	return rows.New(rows.Options{Go: coder.Kernel() != rans.AVX512})
}

// Encode appends the object of raw to dst. Invalid: shape or params are not
// allowed, or raw has another size than the shape says; dst is then returned as
// it was.
func (e *Encoder) Encode(dst, raw []byte, shape *Shape, params *Params) ([]byte, error) {
	if err := shape.Validate(); err != nil {
		return dst, err
	}
	ref, units, err := params.reference(shape)
	if err != nil {
		return dst, err
	}
	if err := params.validate(units); err != nil {
		return dst, err
	}
	if len(raw) != shape.RawSize() {
		return dst, invalid("raw", "its size is not the shape's").With(len(raw), shape.RawSize())
	}
	h := newHeader(units, params)
	if h.Basis = ref; h.joined() > 1 {
		joined := resize(&e.joined, len(raw))
		regroup(raw, joined, shape, h.joined(), false)
		raw = joined
	}
	e.begin(h, params)
	for i := range e.units {
		e.analyse(h, params, raw, i)
	}
	for i := range e.fields {
		e.fields[i].choose()
	}
	walk := h.Plan.Walk()
	for i := range e.units {
		e.work.runs = walk.Next(e.work.runs[:0], h.Tokens)
		e.count(h, raw, i)
	}
	for i := range e.fields {
		h.tables[i] = e.fields[i].tables(h.passes())
	}
	walk = h.Plan.Walk()
	per := len(h.Fields) * h.Heads
	var start [L3 + 1]int
	for i := range e.units {
		e.work.runs = walk.Next(e.work.runs[:0], h.Tokens)
		if err := e.encodeUnit(h, raw, i); err != nil {
			return dst, err
		}
		if (i+1)%per != 0 {
			continue
		}
		for p, b := range e.bodies { // the layer is complete
			h.sums[p*h.Layers+i/per] = crc64nvme.Checksum(b[start[p]:])
			start[p] = len(b)
		}
	}
	dst = h.append(dst)
	for _, b := range e.bodies {
		dst = append(dst, b...)
	}
	return dst, nil
}

func newHeader(shape *Shape, params *Params) *Header {
	h := &Header{Shape: *shape, Finest: params.Finest, Coarsest: params.Coarsest, Sinks: params.Sinks, Plan: params.Plan}
	if h.Plan == nil {
		h.Plan = plan.Uniform(h.Units(), h.Tokens, uint8(h.Finest))
	}
	n := h.passes() * h.Units()
	h.modes, h.lengths = make([]uint8, n), make([]uint32, n)
	h.sums, h.starts = make([]uint64, h.passes()*h.Layers), make([]int64, n)
	h.tables = make([]fieldTables, len(h.Fields))
	return h
}

func (e *Encoder) begin(h *Header, params *Params) {
	resize(&e.units, h.Units())
	for len(e.bodies) < h.passes() {
		e.bodies = append(e.bodies, nil)
	}
	e.bodies = e.bodies[:h.passes()]
	for p := range e.bodies {
		e.bodies[p] = e.bodies[p][:0]
	}
	clear(resize(&e.fields, len(h.Fields)))
	for i, f := range h.Fields {
		if h.Basis.transforms(i) {
			b := params.Calibration.Basis
			e.fields[i].fixed = b.Fields[b.Field(uint8(f.Kind))].Classes
		}
	}
}

// analyse decides how a unit is coded, and quantizes it.
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
	case f.Mode == Plain && h.Sinks < u.tokens && finite(&u, raw, h.Sinks):
		if d.quantize(e.source(&u, raw, h.Sinks), u.tokens, h.Sinks, f.step(u.layer), h.Finest) {
			d.base = basePlain
			resize(&d.classOf, u.dims)
			for c, v := range d.variance {
				d.classOf[c] = varianceClass(v)
				stats.members[d.classOf[c]]++
			}
		}
	}
	if d.base == baseRaw && f.Mode >= Lossless && u.dtype != U8 {
		d.base = baseLossless
		e.average(&u, raw, d)
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

// average computes the average exponent of each channel.
func (e *Encoder) average(u *unit, raw []byte, d *encodedUnit) {
	sums := make([]uint32, u.dims)
	exps, rests := resize(&e.work.exps, u.dims), resize(&e.work.rests, u.dims)
	for t := range u.tokens {
		u.dtype.split(exps, rests, u.row(raw, t))
		for c, v := range exps {
			sums[c] += uint32(v)
		}
	}
	resize(&d.average, u.dims)
	for c, s := range sums {
		d.average[c] = uint16((2*s + uint32(u.tokens)/2) / uint32(u.tokens))
	}
}
