package codec

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// Bases finds a basis by its name, which a Reader does not compare again; nil
// where there is none.
type Bases func(basis.ID) *basis.Basis

// SetBases tells r where bases are. Without, every object that has one is a miss.
func (r *Reader) SetBases(find Bases) { r.bases = find }

// findBasis sets r.basis to that of an object. Miss: there is none of this name.
// Corrupt: it is not for what the object says it is.
func (r *Reader) findBasis(h *Header) error {
	if h.Basis == nil {
		return nil
	}
	if r.bases != nil {
		r.basis = r.bases(h.Basis.ID)
	}
	if r.basis == nil {
		return fault.New(fault.Miss, "object.basis", "unknown basis").With(h.Basis.ID, nil)
	}
	if err := h.Basis.fits(r.basis, &h.Shape); err != nil {
		return err
	}
	for i, f := range h.Fields {
		if n := len(h.tables[i].plain); h.Basis.transforms(i) && n != r.basis.Fields[r.basis.Field(uint8(f.Kind))].Classes {
			return corrupt("classes", "field %d has not those of the basis", i).With(n, nil)
		}
	}
	return nil
}

// openCalibrated reads the head of a transformed unit's base.
func (d *decoding) openCalibrated(h *Header, from *basis.Basis) error {
	head, b, err := d.begin(h.tables[d.u.field].plain)
	if err != nil {
		return err
	}
	if head[0]|head[1]|head[2] != 0 {
		return corrupt("base", "reserved bytes are not zero")
	}
	d.transform, d.turns = d.transformOf(from, h, &d.u)
	copy(resize(&d.classOf, d.u.dims), d.transform.Classes)
	return d.afterClasses(h, head[3], binary.LittleEndian.Uint32(head[4:]), b)
}

// writeComponents writes the rows of a transformed unit at the level of pass last.
func (r *Reader) writeComponents(d *decoding, dst []byte, h *Header, last int) {
	u := &d.u
	row, c, at := resize(&d.row, u.dims), resize(&d.mean, u.dims), 0
	for _, run := range d.runs {
		scale := pow3[max(h.Coarsest-last, int(run.Level))]
		for range run.Tokens {
			for j, v := range d.q[at*u.dims : (at+1)*u.dims] {
				c[j] = float32(d.steps[j] * float32(int32(v)*scale)) // exact
			}
			d.transform.Reconstruct(row, c)
			if d.turns {
				r.basis.Turn(resize(&d.turn, r.basis.Rope.Dims), h.Basis.Position+at)
				r.basis.Rotate(row, d.turn, u.dims/h.Basis.Joined)
			}
			u.dtype.store(u.row(dst, at), row)
			at++
		}
	}
}
