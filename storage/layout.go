package storage

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// PartSpec is one part of every full chunk of a namespace.
type PartSpec struct {
	Group, Span uint8
	HeadGroup   uint16
	RawLength   uint64
	Layers      uint32
}

// Layout lists the parts of every full chunk of a namespace, ascending by
// span, group and head group.
type Layout []PartSpec

// Bytes of a chunk, all parts together.
func (l Layout) Bytes() (n int64) {
	for i := range l {
		n += int64(l[i].RawLength)
	}
	return n
}

// Index finds a part in the list; -1 = there is no such part.
func (l Layout) Index(id part.ID) int {
	for i := range l {
		if l[i].Group == id.Group && l[i].Span == id.Span && l[i].HeadGroup == id.HeadGroup {
			return i
		}
	}
	return -1
}

// Admit checks everything about a part that is to be stored: seal, encoding,
// place in the list, lengths, number of checksums and the bytes themselves. It
// returns the part's index.
func (l Layout) Admit(d *part.Descriptor, src []byte) (int, error) {
	if err := part.VerifySeal(d); err != nil {
		return 0, err
	}
	if !d.Known() {
		return 0, fault.New(fault.Invalid, "part.encoding", "this tier keeps raw and coded parts only").With(d.Encoding, nil)
	}
	i := l.Index(d.ID)
	switch {
	case i < 0:
		return 0, fault.New(fault.Invalid, "part.id", "the namespace has no such part").With(d.ID, nil)
	case d.Raw() && int(l[i].Layers) != len(d.Table):
		return 0, fault.New(fault.Invalid, "part.table", "wrong number of checksums").With(len(d.Table), l[i].Layers)
	case uint64(d.RawLength) != l[i].RawLength:
		return 0, fault.New(fault.Invalid, "part.raw_length", "wrong length of part %d", i).With(d.RawLength, l[i].RawLength)
	case len(src) != int(d.StoredLength):
		return 0, fault.New(fault.Invalid, "put.length", "wrong number of bytes").With(len(src), d.StoredLength)
	}
	return i, part.Verify(d, src)
}
