package codec

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/larderkv/larder/codec/rans"
)

// encoding is a unit on its way through the second half of an Encoder, and the
// memory it takes.
type encoding struct {
	workspace
	u     unit
	unit  *encodedUnit
	raw   []byte
	state rans.State
	modes [L3 + 1]uint8
	// src is what becomes the body of the base: the unit's plane, or arranged.
	src []byte
	// escapes are the places of values without a symbol, tokens first.
	escapes []place
	below   []int // working memory of findEscapes
}

// place is an element of a unit.
type place struct{ token, channel int32 }

// flagState: the base stream has the state of the unit's entropy coder, else it
// is the one that an encoder starts with.
//
// Of a plain unit the upper half of the same byte is the width of its means.
const (
	flagState  = 1
	meanBitsAt = 4
)

// flagsAt is where the flags are in a base stream.
const flagsAt = 3

// encodePair makes the streams of units, one or two. What does not become smaller
// is kept raw.
//
// The entropy coder runs from the finest pass to the base with one state, which
// the base stores: a refinement costs no states of its own.
func (e *Encoder) encodePair(h *Header, pair []encoding) error {
	for i := range pair {
		n := &pair[i]
		n.modes = [L3 + 1]uint8{n.unit.base}
		for p := range n.streams {
			n.streams[p] = n.streams[p][:0]
		}
		n.state.Reset()
		if n.unit.base == basePlain && keepsValues(h, &n.u) {
			n.q = append(n.q[:0], n.unit.q...)
		}
	}
	for p := h.passes() - 1; p > 0; p-- {
		if err := e.refinements(h, pair, p); err != nil {
			return err
		}
	}
	if err := e.bases(h, pair); err != nil {
		return err
	}
	for i := range pair {
		n := &pair[i]
		if n.unit.pack {
			stream, kept, err := e.frames.append(n.streams[0], &n.u, n.raw)
			if err != nil {
				return err
			}
			if n.streams[0] = stream; kept {
				n.modes[0] = baseLossless
				continue
			}
		}
		size := 0
		for _, s := range n.streams {
			size += len(s)
		}
		if n.unit.base == baseRaw || size >= n.u.tokens*n.u.width && n.unit.base != baseRepeat {
			n.modes = [L3 + 1]uint8{baseRaw}
			for p := range n.streams {
				n.streams[p] = n.streams[p][:0]
			}
			for t := range n.u.tokens {
				n.streams[0] = append(n.streams[0], n.u.row(n.raw, t)...)
			}
		}
	}
	return nil
}

// refinements makes the streams of pass p of the plain ones of pair.
func (e *Encoder) refinements(h *Header, pair []encoding, p int) error {
	var sources [2]rans.TernarySource
	var states [2]rans.State
	var coded [2]*encoding
	k := 0
	for i := range pair {
		n := &pair[i]
		if n.unit.base != basePlain {
			continue
		}
		tables := &h.tables[n.u.field]
		n.spans = activeSpans(h, &n.workspace, p)
		n.split(n.u.dims, n.classes(&e.fields[n.u.field]))
		if !slices.ContainsFunc(n.digits, func(b byte) bool { return b != 1 }) {
			n.modes[p] = digitsZero
			continue
		}
		states[k], coded[k] = n.state, n
		sources[k] = rans.TernarySource{Dst: n.streams[p], State: &states[k], Table: &tables.coded[p-1], Contexts: n.contexts, Src: n.digits}
		k++
	}
	var err error
	switch s := &sources[0]; k {
	case 1:
		s.Dst, err = e.coder.EncodeTernary(s.Dst, s.State, s.Table, s.Contexts, s.Src)
	case 2:
		err = e.coder.EncodeTernaryPair(s, &sources[1])
	}
	if err != nil {
		return err
	}
	for i, n := range coded[:k] {
		// Raw digits leave the state where it was.
		if size := rawDigitsSize(len(n.digits)); size*100 <= len(sources[i].Dst)*102 {
			n.streams[p], n.modes[p] = appendRawDigits(n.streams[p], n.digits), digitsRaw
			continue
		}
		n.streams[p], n.state, n.modes[p] = sources[i].Dst, states[i], digitsCoded
	}
	return nil
}

// bases makes the base streams of pair.
func (e *Encoder) bases(h *Header, pair []encoding) error {
	var sources [2]rans.Source
	var coded [2]*encoding
	k := 0
	for i := range pair {
		n := &pair[i]
		switch n.unit.base {
		case baseRepeat:
			n.streams[0] = append(n.streams[0], n.u.row(n.raw, 0)...)
			continue
		case baseLossless:
			n.losslessHead(e.codes[n.u.field].lossless)
		case basePlain:
			n.plainHead(h, &e.fields[n.u.field], e.codes[n.u.field].plain)
		default:
			continue
		}
		// The state is known when the body is, and stands before it.
		s := n.streams[0]
		for len(s)%4 != 0 {
			s = append(s, 0)
		}
		s = slices.Grow(s, rans.StateSize)[:len(s)+rans.StateSize]
		sources[k] = rans.Source{Dst: s, State: &n.state, Runs: n.order.runs, Src: n.src}
		coded[k] = n
		k++
	}
	var err error
	switch s := &sources[0]; k {
	case 1:
		s.Dst, err = e.coder.Encode(s.Dst, s.State, s.Runs, s.Src)
	case 2:
		err = e.coder.EncodePair(s, &sources[1])
	}
	if err != nil {
		return err
	}
	for i, n := range coded[:k] {
		head := len(n.streams[0])
		body := (head + 3) / 4 * 4
		if s := sources[i].Dst; len(s) > body+rans.StateSize || !n.state.AtStart() {
			s[flagsAt] |= flagState
			n.state.AppendTo(s[:body])
			n.streams[0] = s
		}
	}
	return nil
}

// classes sets n.classOf to the classes of the channels of a plain unit.
func (n *encoding) classes(s *fieldStats) []uint8 {
	resize(&n.classOf, n.u.dims)
	for c, v := range n.unit.classOf {
		n.classOf[c] = s.plainOf[v]
	}
	return n.classOf
}

// plainHead makes a base stream up to the state, and n.src.
func (n *encoding) plainHead(h *Header, s *fieldStats, codes []code) {
	d := n.unit
	n.take(codes, n.classes(s), func(class uint8) uint8 { return s.plainOf[class] })

	head := n.streams[0]
	if h.Basis.transforms(n.u.field) {
		head = append(head, 0, 0, 0, 0)
		head = binary.LittleEndian.AppendUint32(head, uint32(len(n.escapes)))
	} else {
		head = binary.LittleEndian.AppendUint16(head, d.step)
		head = append(head, byte(d.shift), d.meanBits<<meanBitsAt)
		head = binary.LittleEndian.AppendUint32(head, uint32(len(n.escapes)))
		head = appendPacked(head, d.packedMeans(&n.row8), int(d.meanBits))
		head = appendPacked(head, n.classOf, classBits(len(codes)))
	}
	for t := range min(h.Sinks, n.u.tokens) {
		head = append(head, n.u.row(n.raw, t)...)
	}
	if len(n.escapes) > 0 {
		value := n.valueAt(h)
		for _, at := range n.escapes {
			head = binary.LittleEndian.AppendUint16(head, uint16(value(at)))
		}
	}
	n.streams[0] = head
}

// valueAt returns a function that gives the value of an element at the coarsest
// level.
func (n *encoding) valueAt(h *Header) func(at place) int16 {
	if keepsValues(h, &n.u) {
		return func(at place) int16 { return n.q[int(at.token)*n.u.dims+int(at.channel)] }
	}
	places := n.order.classes.Places(n.u.tokens)
	var mean []float32
	var inv float32
	return func(at place) int16 {
		if b := n.src[places[at.channel]+int(at.token)]; b != 0 {
			return int16(b) - valueZero
		}
		if mean == nil {
			mean, inv, _ = n.unit.inSteps(&n.mean, h.Finest)
		}
		x := fromBF16(binary.LittleEndian.Uint16(n.u.row(n.raw, int(at.token))[2*at.channel:]))
		return int16(roundEven(float32(float32(x-mean[at.channel]) * inv)))
	}
}

// losslessHead makes a base stream up to the state, and n.src.
func (n *encoding) losslessHead(codes []code) {
	u, d := &n.u, n.unit
	n.take(codes, d.classOf, func(class uint8) uint8 { return class })

	head := n.streams[0]
	head = append(head, 0, 0, 0, 0)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(n.escapes)))
	head = appendPacked(head, d.classOf, classBits(len(codes)))
	for _, at := range n.escapes {
		head = append(head, u.dtype.exponentOf(u.dtype.bits(u.row(n.raw, int(at.token)), int(at.channel))))
	}
	if u.dtype == BF16 {
		size := u.tokens * u.dims
		head = slices.Grow(head, size)[:len(head)+size]
		n.ops.SplitBF16(resize(&n.exps, size), head[len(head)-size:], n.raw[u.offset:], u.stride, u.tokens, u.dims)
	} else {
		exps, rests := resize(&n.exps, u.dims), resize(&n.rests, u.tokens*u.dims)
		for t := range u.tokens {
			u.dtype.split(exps, rests[t*u.dims:(t+1)*u.dims], u.row(n.raw, t))
		}
		head = u.dtype.appendRests(head, rests)
	}
	n.streams[0] = head
}

// findEscapes sets n.escapes to the places of what n.masks marks of n.src, of which
// there are count.
func (n *encoding) findEscapes(count int) {
	resize(&n.escapes, count)
	if count == 0 {
		return
	}
	masks := n.masks
	// Channel after channel, then sorted by token, which keeps that order: below is
	// where the next place of a token goes.
	tokens := n.u.tokens
	below := resize(&n.below, tokens+1)
	clear(below)
	found := resize(&n.places, count)
	k := 0
	for ch, from := range n.order.classes.Places(tokens) {
		for t := 0; t < tokens; {
			at := from + t
			mask := masks[at/64] >> (at % 64)
			next := t + 64 - at%64
			if next > tokens {
				mask &= 1<<(tokens-t) - 1
			}
			for ; mask != 0; mask &= mask - 1 {
				p := place{int32(t + bits.TrailingZeros64(mask)), int32(ch)}
				below[p.token+1]++
				found[k] = p
				k++
			}
			t = next
		}
	}
	for t := range tokens {
		below[t+1] += below[t]
	}
	for _, p := range found {
		n.escapes[below[p.token]] = p
		below[p.token]++
	}
}
