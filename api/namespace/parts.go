package namespace

import "sort"

// PartSpec is one part that every full chunk of a namespace consists of.
type PartSpec struct {
	Group     uint8
	Span      uint8
	HeadGroup uint16
	// FirstHead is the first KV head in the part, Heads their number.
	FirstHead, Heads uint32
	// Layers holds the ids of the part's layers, ascending; it aliases the
	// descriptor. The bytes of layer i are
	// [i*LayerBytes, (i+1)*LayerBytes).
	Layers []uint32
	// LayerBytes is the length of one layer's bytes.
	LayerBytes uint64
	// RawLength is LayerBytes for each layer.
	RawLength uint64
}

// Parts lists every part of a full chunk, ordered by span, group and head
// group. Loads and commits name parts by their index in this list. d must be
// valid.
func (d *Descriptor) Parts() []PartSpec {
	var parts []PartSpec
	for s := range d.Spans {
		for g := range d.Groups {
			grp := &d.Groups[g]
			layers := d.layersIn(grp, s)
			if len(layers) == 0 {
				continue
			}
			per := d.layerBytes(grp)
			for h := uint32(0); h < grp.KVHeads/grp.HeadGroup; h++ {
				parts = append(parts, PartSpec{
					Group: uint8(g), Span: uint8(s), HeadGroup: uint16(h),
					FirstHead: h * grp.HeadGroup, Heads: grp.HeadGroup,
					Layers: layers, LayerBytes: per, RawLength: per * uint64(len(layers)),
				})
			}
		}
	}
	return parts
}

// ChunkBytes is the sum of RawLength over Parts. d must be valid.
func (d *Descriptor) ChunkBytes() uint64 {
	var n uint64
	for _, p := range d.Parts() {
		n += p.RawLength
	}
	return n
}

// layersIn returns g's layers in span s; they are neighbours in g.Layers,
// since both ascend.
func (d *Descriptor) layersIn(g *Group, s int) []uint32 {
	lo := sort.Search(len(g.Layers), func(i int) bool { return g.Layers[i] >= d.Spans[s] })
	hi := len(g.Layers)
	if s+1 < len(d.Spans) {
		hi = sort.Search(len(g.Layers), func(i int) bool { return g.Layers[i] >= d.Spans[s+1] })
	}
	return g.Layers[lo:hi:hi]
}

// layerBytes is the length of one layer and head group of a chunk.
func (d *Descriptor) layerBytes(g *Group) uint64 {
	if d.Layout.Name == LayoutOpaque {
		return uint64(d.ChunkTokens/g.BlockTokens) * uint64(g.BlockBytes)
	}
	return uint64(g.HeadGroup) * uint64(d.ChunkTokens/g.TokensPerEntry) *
		uint64(g.Dk+g.Dv) * uint64(elementBytes[d.KVDtype])
}

// DefaultHeadGroup returns the head group for group g of d: the smallest
// number of KV heads, dividing them, with which every part of the group is at
// least 1 MiB; all heads where none is. An opaque layout cannot be cut, so its
// head group is whatever one rank's blocks hold; the answer there is what d
// says. Except for g's HeadGroup, d must be valid.
//
// Small parts cost a slot, a descriptor and a copy call each; large ones bind
// the tensor-parallel sizes that can share the namespace.
func DefaultHeadGroup(d *Descriptor, g int) uint32 {
	grp := d.Groups[g]
	if d.Layout.Name == LayoutOpaque {
		return grp.HeadGroup
	}
	fewest := len(grp.Layers)
	for s := range d.Spans {
		if n := len(d.layersIn(&grp, s)); n > 0 && n < fewest {
			fewest = n
		}
	}
	for h := uint32(1); h < grp.KVHeads; h++ {
		grp.HeadGroup = h
		if grp.KVHeads%h == 0 && d.layerBytes(&grp)*uint64(fewest) >= 1<<20 {
			return h
		}
	}
	return grp.KVHeads
}
