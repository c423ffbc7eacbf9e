package codec

import (
	"bytes"
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
)

// Bases finds a basis by its name; nil where there is none.
type Bases func(basis.ID) *basis.Basis

// SetBases tells r where bases are. Without, every object that has one is a miss.
func (r *Reader) SetBases(find Bases) { r.bases = find }

// findBasis sets r.basis to that of an object. Miss: there is none of this name.
// Corrupt: it is not for what the object says it is.
func (r *Reader) findBasis(h *Header) error {
	r.basis = nil
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

// calibrated decodes a transformed unit.
func (r *Reader) calibrated(dst []byte, h *Header, u *unit, last int) error {
	w := &r.work
	b := w.streams[0]
	head, err := cut(&b, 8)
	if err != nil {
		return err
	}
	if !bytes.Equal(head[:3], []byte{0, 0, 0}) {
		return corrupt("base", "reserved bytes are not zero")
	}
	t, turns := w.transformOf(r.basis, h, u)
	copy(resize(&w.classOf, u.dims), t.Classes)
	var st rans.State
	exact, escapes, err := r.base(h, u, &st, head[3], binary.LittleEndian.Uint32(head[4:]), b)
	if err != nil {
		return err
	}
	if err := r.refined(h, u, &st, escapes, last); err != nil {
		return err
	}
	if last == h.passes()-1 && !st.AtStart() {
		return corrupt("state", "is not where an encoder starts")
	}
	row, c, at := resize(&w.row, u.dims), resize(&w.mean, u.dims), 0
	for _, run := range w.runs {
		scale := pow3[max(h.Coarsest-last, int(run.Level))]
		for range run.Tokens {
			for j, v := range w.q[at*u.dims : (at+1)*u.dims] {
				c[j] = float32(w.steps[j] * float32(int32(v)*scale)) // exact
			}
			t.Reconstruct(row, c)
			if turns {
				r.basis.Turn(resize(&w.turn, r.basis.Rope.Dims), h.Basis.Position+at)
				r.basis.Rotate(row, w.turn, u.dims/h.Basis.Joined)
			}
			u.dtype.store(u.row(dst, at), row)
			at++
		}
	}
	for k := range len(exact) / u.width {
		copy(u.row(dst, k), exact[k*u.width:])
	}
	return nil
}
