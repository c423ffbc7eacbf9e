package codec

import (
	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
	"github.com/minio/crc64nvme"
)

// Encoder makes objects. It keeps its working memory from one call to the next:
// a byte for each coded element of an object (three where it has several levels,
// or another type than bf16 or calibrated fields), the coded bytes of all passes
// but the base, and, where a basis joins heads, the raw bytes once more.
type Encoder struct {
	coder *rans.Coder

	units  []encodedUnit
	fields []fieldStats
	tables []fieldTables
	codes  []fieldCodes
	// bodies has the streams of each pass, each filled up to align. The base's are
	// the caller's memory, behind the header.
	bodies [][]byte
	// pair is what is coded at once.
	pair [2]encoding
	// work is what analysing units needs, x what from reads.
	work workspace
	x    []float32
	from source
	// joined has the raw bytes in the order of units of several heads.
	joined []byte
	frames frames
}

// workspace is what coding one unit needs, in both directions.
type workspace struct {
	exps, symbols, digits, contexts []byte
	rests, sums                     []uint32
	q                               []int16
	runs                            []plan.Run
	spans                           []plan.Span
	order                           order
	early                           rows.ClassMap
	// arranged has the symbols in the entropy coder's order.
	arranged      []byte
	streams       [L3 + 1][]byte
	classOf, row8 []uint8
	row, mean     []float32
	steps, turn   []float32
	projecting    []float32
	means         []int8
	class2        []byte
	masks         []uint64 // of what escapes
	places        []place

	ops *rows.Ops
}

// encodedUnit is what the first pass finds out about a unit.
type encodedUnit struct {
	base uint8
	// pack: raw as yet, to be tried as frames.
	pack bool
	quantized
	// Of baseLossless: average exponent of each channel in halves.
	average []uint16
	// Classes of channels: of basePlain, before compactClasses.
	classOf []uint8
	// plane has a byte for each element, arranged by classOf: of basePlain the
	// value at the coarsest level plus valueZero, or 0 where that is no byte; of
	// baseLossless the exponent.
	plane []byte
}

// NewEncoder returns an Encoder that uses coder for its entropy stage.
func NewEncoder(coder *rans.Coder) *Encoder {
	e := &Encoder{coder: coder, work: workspace{ops: opsOf(coder)}}
	for i := range e.pair {
		e.pair[i].ops = e.work.ops
	}
	return e
}

// opsOf returns the row arithmetic that goes with a coder: of the same kind.
func opsOf(coder *rans.Coder) *rows.Ops {
	return rows.New(rows.Options{Go: coder.Kernel() == rans.Go, AVX2: coder.Kernel() == rans.AVX2})
}

// Encode appends the object of raw to dst. Invalid: shape or params are not
// allowed, or raw has another size than the shape says; dst is then returned as
// it was. Bytes of dst's capacity behind what it returns may have been written.
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
	walk := h.Plan.Walk()
	for i := range e.units {
		e.work.runs = walk.Next(e.work.runs[:0], h.Tokens)
		e.analyse(h, params, raw, i)
	}
	e.from = source{} // its rows are the caller's
	for i := range e.fields {
		e.fields[i].choose(h.passes())
	}
	for i := range e.units {
		e.countExponents(h, i)
	}
	for i := range e.fields {
		e.fields[i].tables(&h.tables[i], h.passes())
		e.codes[i].set(&h.tables[i])
	}
	// The header's length is known by now, what it says is not.
	tables := h.appendTables(nil)
	size := h.size(tables)
	e.bodies[0] = append(dst, make([]byte, size)...)
	err = e.encodeUnits(h, raw, len(dst)+size)
	base := e.bodies[0]
	e.bodies[0] = nil
	if err != nil {
		return dst, err
	}
	h.append(base[:len(dst)], tables)
	for _, b := range e.bodies[1:] {
		base = append(base, b...)
	}
	return base, nil
}

// encodeUnits appends the streams of all units, two at a time, to the bodies, of
// which the base's begin at base.
func (e *Encoder) encodeUnits(h *Header, raw []byte, base int) error {
	defer func() {
		for i := range e.pair {
			e.pair[i].unit, e.pair[i].raw = nil, nil
		}
	}()
	start := [L3 + 1]int{base}
	walk := h.Plan.Walk()
	per := len(h.Fields) * h.Heads
	for i := 0; i < len(e.units); i += len(e.pair) {
		pair := e.pair[:min(len(e.pair), len(e.units)-i)]
		for k := range pair {
			n := &pair[k]
			n.u, n.unit, n.raw = h.unit(i+k), &e.units[i+k], raw
			n.runs = walk.Next(n.runs[:0], h.Tokens)
		}
		if err := e.encodePair(h, pair); err != nil {
			return err
		}
		for k := range pair {
			e.store(h, &pair[k])
			if (i+k+1)%per != 0 {
				continue
			}
			for p, b := range e.bodies { // the layer is complete
				h.sums[p*h.Layers+(i+k)/per] = crc64nvme.Checksum(b[start[p]:])
				start[p] = len(b)
			}
		}
	}
	return nil
}

// store appends the streams of a unit to the bodies, and sets its part of the
// directory.
func (e *Encoder) store(h *Header, n *encoding) {
	for p := range h.passes() {
		i := p*h.Units() + n.u.index
		s := n.streams[p]
		h.modes[i], h.lengths[i] = n.modes[p], uint32(len(s))
		e.bodies[p] = append(e.bodies[p], s...)
		e.bodies[p] = append(e.bodies[p], zeros[:padded(int64(len(s)))-int64(len(s))]...)
	}
}

var zeros [align]byte

func newHeader(shape *Shape, params *Params) *Header {
	h := &Header{Shape: *shape, Finest: params.Finest, Coarsest: params.Coarsest, Sinks: params.Sinks, Plan: params.Plan}
	if h.Plan == nil {
		h.Plan = plan.Uniform(h.Units(), h.Tokens, uint8(h.Finest))
	}
	n := h.passes() * h.Units()
	h.modes, h.lengths = make([]uint8, n), make([]uint32, n)
	h.sums, h.starts = make([]uint64, h.passes()*h.Layers), make([]int64, n)
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
	h.tables = resize(&e.tables, len(h.Fields))
	resize(&e.codes, len(h.Fields))
	for i, f := range h.Fields {
		if h.Basis.transforms(i) {
			b := params.Calibration.Basis
			e.fields[i].fixed = b.Fields[b.Field(uint8(f.Kind))].Classes
		}
	}
}
