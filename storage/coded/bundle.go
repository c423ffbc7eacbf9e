package coded

import (
	"context"
	"encoding/binary"

	"github.com/minio/crc64nvme"

	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/storage"
)

// section of a chunk: its parts of one group and span.
type section struct{ group, span uint8 }

func sectionOf(id part.ID) section { return section{id.Group, id.Span} }

// bundle is a section of several head groups, as one block of KV.
type bundle struct {
	shape *codec.Shape
	// part is the shape of each of its parts, of which there are as many: head
	// group i has the heads from i x part.Heads on.
	part  *codec.Shape
	parts int
	// by is what it is written by; nil: its parts are written by themselves.
	by *calibration
}

// bundlesOf are the sections of a namespace that could be bundles.
func bundlesOf(d *namespace.Descriptor, shapes map[place]*codec.Shape) map[section]*bundle {
	found := map[section]*bundle{}
	if opaque(shapes) {
		return found // bytes, of which heads mean nothing
	}
	for _, p := range d.Parts() {
		s := shapes[place{p.Group, p.Span, p.HeadGroup}]
		if s == nil || p.FirstHead != 0 || p.Heads == d.Groups[p.Group].KVHeads {
			continue
		}
		all := *s
		all.Heads = int(d.Groups[p.Group].KVHeads)
		if all.Validate() == nil {
			found[section{p.Group, p.Span}] = &bundle{shape: &all, part: s, parts: all.Heads / s.Heads}
		}
	}
	return found
}

// slices of an object of so many bytes: each but the last is width long. False:
// they are not shorter than the parts, or do not suffice for all.
func (b *bundle) slices(object int) (width int, ok bool) {
	width = (object + b.parts - 1) / b.parts
	return width, width < b.part.RawSize() && object > width*(b.parts-1)
}

// scatter copies layers [low, high) of the bundle, which raw has, to the parts
// that are not nil.
func (b *bundle) scatter(parts [][]byte, raw []byte, low, high int) {
	n := b.part.LayerSize()
	for layer := low; layer < high; layer++ {
		for _, p := range parts {
			if p != nil {
				copy(p[layer*n:(layer+1)*n], raw)
			}
			raw = raw[n:]
		}
	}
}

// gather is the reverse for all layers.
func (b *bundle) gather(raw []byte, parts []storage.PartBytes) {
	n := b.part.LayerSize()
	for layer := range b.shape.Layers {
		for i := range parts {
			copy(raw, parts[i].Bytes[layer*n:(layer+1)*n])
			raw = raw[n:]
		}
	}
}

// weight of writing a bundle: it is copied together once more.
func (b *bundle) weight() int64 { return encodeWeight(b.shape, b.by.by()) + int64(b.shape.RawSize()) }

// bundled is the bundle that the parts from list's front on make up, if they are
// to be written as one: all of a section, exact, and within the basis's reach.
func (s *Stage) bundled(list []storage.PartBytes) *bundle {
	b := s.bundles[sectionOf(list[0].Part.ID)]
	if b == nil || b.by == nil || len(list) < b.parts {
		return nil
	}
	first := list[0].Part
	for i, p := range list[:b.parts] {
		d := p.Part
		want := first.ID
		want.HeadGroup = uint16(i)
		if d.ID != want || !d.Raw() || d.Quality != part.QualityExact || d.Ordinal != first.Ordinal || d.Parent != first.Parent || d.Tokens != first.Tokens {
			return nil
		}
	}
	if _, ok := b.by.at(first.Ordinal); !ok {
		return nil
	}
	return b
}

// encodeBundle codes parts that bundled has found to be one, into coded. The
// object, of which they are slices, goes back by giveBuffer; it is nil where the
// parts are raw, since they would not be shorter.
func (s *Stage) encodeBundle(ctx context.Context, b *bundle, parts, coded []storage.PartBytes) (object []byte, err error) {
	for _, p := range parts {
		if _, err := s.layout.Admit(p.Part, p.Bytes); err != nil {
			return nil, err
		}
	}
	level, _ := s.mode.lossy()
	position, _ := b.by.at(parts[0].Part.Ordinal)
	params := b.by.params(b.shape, level, position)
	raw := s.pool.buffer(b.shape.RawSize())
	b.gather(raw, parts)
	object, err = s.pool.encodeBy(ctx, raw, b.shape, &params)
	s.pool.giveBuffer(raw)
	if err != nil {
		s.pool.count(func(st *Stats) { st.notEncoded(err, b.parts) })
		return nil, err
	}
	width, ok := b.slices(len(object))
	if !ok {
		s.pool.giveBuffer(object)
		object = nil
	}
	var header uint64
	if ok {
		size, err := codec.HeaderSize(object)
		if err != nil {
			return object, err
		}
		header = binary.LittleEndian.Uint64(object[size-8:])
	}
	stored := 0
	for i := range parts {
		d := *parts[i].Part
		d.Quality = s.mode.Quality()
		coded[i] = storage.PartBytes{Part: &d, Bytes: parts[i].Bytes}
		if ok {
			slice := object[i*width : min((i+1)*width, len(object))]
			d.Encoding, d.EncodingVersion, d.Basis = part.EncodingBundle, part.BundleVersion, basisNumber(b.by.basis.ID())
			d.StoredLength = uint32(len(slice))
			d.Table = []uint64{part.CodecHeader: header, part.CodecBytes: crc64nvme.Checksum(slice)}
			coded[i].Bytes = slice
		}
		stored += len(coded[i].Bytes)
		if err := part.Seal(&d); err != nil {
			return object, err
		}
	}
	s.pool.count(func(st *Stats) {
		if !ok {
			st.Kept += uint64(b.parts)
			return
		}
		st.Encoded += uint64(b.parts)
		st.EncodedBytes += int64(b.shape.RawSize())
		st.EncodedStored += int64(stored)
	})
	s.wrote(b.shape.RawSize(), stored)
	return object, nil
}

// wrote counts for Expected.
func (s *Stage) wrote(raw, stored int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw += int64(raw)
	s.stored += int64(stored)
}

// mixed says whether some slices of a bundle were taken and others not, since
// the tier has something else in their place: it would make a chunk of both.
func mixed(outs []storage.Outcome) bool {
	conflict, taken := false, false
	for _, out := range outs {
		conflict = conflict || out == storage.Conflict
		taken = taken || out != storage.Conflict && out != storage.Rejected
	}
	return conflict && taken
}
