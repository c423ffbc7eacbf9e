package codec

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
	"github.com/minio/crc64nvme"
)

// Reader decodes objects. It keeps the working memory of two units from one call
// to the next: the entropy coder takes two in less time than one after the other.
type Reader struct {
	coder  *rans.Coder
	units  [2]decoding
	passes [][]byte
	header Header // of Decode
	frames frames

	bases  Bases
	basis  *basis.Basis // of the object at hand
	joined []byte       // its layers, in the order of units of several heads
}

// NewReader returns a Reader that uses coder for its entropy stage.
func NewReader(coder *rans.Coder) *Reader {
	r := &Reader{coder: coder}
	for i := range r.units {
		r.units[i].ops, r.units[i].frames = opsOf(coder), &r.frames
	}
	return r
}

// Decode parses object and decodes all of it at level into dst. object may be a
// prefix that holds the level (Header.Prefix). Invalid: dst has not the size of
// shape. Corrupt: object is damaged, or is of another shape. Miss: its version
// is unknown. On an error dst holds anything.
func (r *Reader) Decode(dst, object []byte, shape *Shape, level int) error {
	h := &r.header
	if err := h.parse(object); err != nil {
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
	err := r.DecodeLayers(dst, h, shape, passes, 0, shape.Layers, level)
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
	if !shape.Equal(h.Uncoded()) {
		return corrupt("shape", "not the expected one")
	}
	if low < 0 || high > h.Layers || low >= high {
		return invalid("layers", "not in the object").With(high, h.Layers)
	}
	if n := (high - low) * h.LayerSize(); len(dst) != n {
		return invalid("dst", "its size is not that of the layers").With(len(dst), n)
	}
	defer r.forget()
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
	open := 0
	for i := low * per; i < high*per; i++ {
		d := &r.units[open]
		d.runs = walk.Next(d.runs[:0], h.Tokens)
		d.u = h.unit(i)
		d.u.offset -= low * h.LayerSize()
		if i%per == 0 {
			if err := verify(h, passes, &starts, d.u.layer); err != nil {
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
			d.streams[p] = s[:n:n]
		}
		coded, err := d.open(out, h, r.basis)
		if err != nil {
			return fault.Wrap(fault.Corrupt, err, "object.stream", "unit %d", i)
		}
		if coded {
			open++
		}
		if open == len(r.units) || open > 0 && i == high*per-1 {
			if err := r.decode(out, h, r.units[:open], last); err != nil {
				return fault.Wrap(fault.Corrupt, err, "object.stream", "one of the units %d to %d", r.units[0].u.index, i)
			}
			open = 0
		}
	}
	if h.joined() > 1 {
		regroup(dst, out, shape, h.joined(), true)
	}
	return nil
}

// forget drops what is the caller's.
func (r *Reader) forget() {
	r.basis = nil
	for i := range r.units {
		d := &r.units[i]
		d.streams = [L3 + 1][]byte{}
		d.exact, d.escapes, d.rest, d.coded, d.transform = nil, nil, nil, nil, nil
	}
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
