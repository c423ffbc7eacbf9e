package codec

import (
	"encoding/binary"

	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
)

// decoding is a unit on its way through a Reader: opened, which reads all but the
// entropy-coded bodies of its streams; decoded, perhaps beside another one; and
// written.
type decoding struct {
	workspace
	u     unit
	mode  uint8
	state rans.State
	// frames is the reader's.
	frames *frames

	// What a base stream says. The slices are the object's.
	step    uint16
	shift   int8
	exact   []byte // rows of sinks
	escapes []byte
	rest    []byte // the rest plane of a lossless unit
	coded   []byte // the body of the base
	tables  []rans.Table

	// Of a transformed unit, else nil; turns says whether the position turns it.
	transform *basis.Transform
	turns     bool
}

// open writes the rows of a unit that is not coded, and reads the head of one that
// is: coded is then true.
func (d *decoding) open(dst []byte, h *Header, b *basis.Basis) (coded bool, err error) {
	u := &d.u
	d.transform = nil
	d.mode = h.modes[u.index]
	if d.mode != basePlain {
		for p := 1; p < h.passes(); p++ {
			if h.modes[p*h.Units()+u.index] != digitsZero {
				return false, corrupt("modes", "an exact unit has refinements")
			}
		}
	}
	s := d.streams[0]
	switch d.mode {
	case baseRaw:
		if len(s) != u.tokens*u.width {
			return false, corrupt("raw", "wrong size").With(len(s), u.tokens*u.width)
		}
		for t := range u.tokens {
			copy(u.row(dst, t), s[t*u.width:])
		}
		return false, nil
	case baseRepeat:
		if len(s) != u.width {
			return false, corrupt("repeat", "wrong size").With(len(s), u.width)
		}
		for t := range u.tokens {
			copy(u.row(dst, t), s)
		}
		return false, nil
	case baseLossless:
		if u.dtype == U8 {
			return false, d.frames.read(dst, u, s)
		}
		return true, d.openLossless(h)
	}
	if h.Basis.transforms(u.field) {
		return true, d.openCalibrated(h, b)
	}
	return true, d.openPlain(h)
}

// begin takes the head from the front of the base stream of a unit that is coded by
// tables: four bytes that differ by mode, the last of which has flags, and the
// number of escapes.
func (d *decoding) begin(tables []rans.Table) (head, rest []byte, err error) {
	if len(tables) == 0 {
		return nil, nil, corrupt("classes", "no tables for a coded unit")
	}
	d.tables, rest = tables, d.streams[0]
	head, err = cut(&rest, 8)
	return head, rest, err
}

func (d *decoding) openLossless(h *Header) error {
	u := &d.u
	head, b, err := d.begin(h.tables[u.field].lossless)
	if err != nil {
		return err
	}
	if head[0]|head[1]|head[2] != 0 {
		return corrupt("base", "reserved bytes are not zero")
	}
	if err := readClassMap(resize(&d.classOf, u.dims), &b, len(d.tables)); err != nil {
		return err
	}
	if d.escapes, err = cut(&b, int(min(binary.LittleEndian.Uint32(head[4:]), 1<<30))); err != nil {
		return err
	}
	if d.rest, err = cut(&b, u.dtype.restSize(u.tokens*u.dims)); err != nil {
		return err
	}
	return d.body(head[3], b)
}

func (d *decoding) openPlain(h *Header) error {
	u := &d.u
	head, b, err := d.begin(h.tables[u.field].plain)
	if err != nil {
		return err
	}
	d.step, d.shift = binary.LittleEndian.Uint16(head), int8(head[2])
	if s := fromBF16(d.step); !(s >= pow2(minStepExp) && s <= pow2(maxStepExp)) || d.shift < minShift || d.shift > maxShift {
		return corrupt("step", "out of range").With(s, d.shift)
	}
	if err := readMeans(resize(&d.means, u.dims), &d.row8, &b, head[3]>>meanBitsAt); err != nil {
		return err
	}
	if err := readClassMap(resize(&d.classOf, u.dims), &b, len(d.tables)); err != nil {
		return err
	}
	return d.afterClasses(h, head[3]&(1<<meanBitsAt-1), binary.LittleEndian.Uint32(head[4:]), b)
}

// afterClasses reads what follows the class map of a base of values: the exact rows,
// the escapes, and the body.
func (d *decoding) afterClasses(h *Header, flags byte, escapes uint32, b []byte) (err error) {
	if d.exact, err = cut(&b, min(h.Sinks, d.u.tokens)*d.u.width); err != nil {
		return err
	}
	if d.escapes, err = cut(&b, 2*int(min(escapes, 1<<30))); err != nil {
		return err
	}
	return d.body(flags, b)
}

// body takes what is left of a base stream.
func (d *decoding) body(flags byte, b []byte) error {
	if err := d.readState(flags, &b); err != nil {
		return err
	}
	d.coded = b
	d.order.arrange(d.classOf, len(d.tables), func(c int) *rans.Table { return &d.tables[c] }, d.u.tokens)
	resize(&d.arranged, d.order.symbols)
	return nil
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

// readState reads the state of a unit, if it is stored, behind padding. *b is the
// rest of the base stream.
func (d *decoding) readState(flags byte, b *[]byte) error {
	d.state.Reset()
	if flags&^flagState != 0 {
		return corrupt("flags", "unknown").With(flags, flagState)
	}
	if flags == 0 {
		return nil
	}
	pad, err := cut(b, -(len(d.streams[0])-len(*b))&3)
	if err != nil {
		return err
	}
	for _, z := range pad {
		if z != 0 {
			return corrupt("base", "padding is not zero")
		}
	}
	if err := d.state.Read(*b); err != nil {
		return err
	}
	*b = (*b)[rans.StateSize:]
	return nil
}
