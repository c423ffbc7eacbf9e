package coded

import (
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
)

// dtypes are the element types that the codec knows, by their torch names.
var dtypes = map[string]codec.DType{
	"bfloat16": codec.BF16, "float16": codec.F16, "float32": codec.F32,
	"float8_e4m3fn": codec.F8E4M3, "float8_e5m2": codec.F8E5M2,
}

// place of a part in its chunk.
type place struct {
	group, span uint8
	headGroup   uint16
}

func placeOf(id part.ID) place { return place{id.Group, id.Span, id.HeadGroup} }

// shapesOf are the shapes of a namespace's parts: opaque ones where the codec cannot
// look into one of them, since the parts of a chunk must be of one quality.
func shapesOf(d *namespace.Descriptor) map[place]*codec.Shape {
	if shapes := knownShapes(d); shapes != nil {
		return shapes
	}
	return opaqueShapes(d)
}

// knownShapes are those of parts whose inside is known; none if one of them is not.
func knownShapes(d *namespace.Descriptor) map[place]*codec.Shape {
	dtype, known := dtypes[d.KVDtype]
	if d.Layout.Name != namespace.LayoutCanonical || !known {
		return nil
	}
	shapes := map[place]*codec.Shape{}
	for _, p := range d.Parts() {
		g := &d.Groups[p.Group]
		s := &codec.Shape{
			FirstLayer: int(p.Layers[0]), Layers: len(p.Layers), Heads: int(p.Heads), Tokens: int(d.ChunkTokens / g.TokensPerEntry),
			Fields: []codec.Field{{Kind: codec.K, DType: dtype, Dims: int(g.Dk)}, {Kind: codec.V, DType: dtype, Dims: int(g.Dv)}},
		}
		if g.Kind == namespace.KindLatent {
			s.Fields = []codec.Field{{Kind: codec.Latent, DType: dtype, Dims: int(g.Dk)}}
		}
		if s.Validate() != nil || uint64(s.RawSize()) != p.RawLength {
			return nil
		}
		shapes[place{p.Group, p.Span, p.HeadGroup}] = s
	}
	return shapes
}
