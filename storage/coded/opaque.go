package coded

import (
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/codec"
)

// opaqueShapes are the shapes of a namespace's parts where the codec cannot look into
// some of them: of each layer one opaque unit, as api/PART.md says. Nothing is lost
// then, whatever the mode. None where the bytes of a layer have no shape.
func opaqueShapes(d *namespace.Descriptor) map[place]*codec.Shape {
	shapes := map[place]*codec.Shape{}
	for _, p := range d.Parts() {
		f := codec.Field{Kind: codec.Opaque, DType: codec.U8}
		// Elements of bfloat16 shrink more as such, and in a third of the time. Other
		// types are slower so than as bytes; states have a type of their own.
		if d.KVDtype == "bfloat16" && d.Groups[p.Group].Kind != namespace.KindState && p.LayerBytes%2 == 0 {
			f.DType = codec.BF16
		}
		s := &codec.Shape{FirstLayer: int(p.Layers[0]), Layers: len(p.Layers), Heads: 1}
		s.Tokens, f.Dims = rowsOf(int(p.LayerBytes)/f.DType.Size(), int(d.ChunkTokens))
		s.Fields = []codec.Field{f}
		if s.Validate() != nil || uint64(s.RawSize()) != p.RawLength {
			return nil
		}
		shapes[place{p.Group, p.Span, p.HeadGroup}] = s
	}
	if len(shapes) == 0 {
		return nil
	}
	return shapes
}

// rowsOf n elements: one for each token, or, where these are too long or do not come
// out even, the fewest that are neither. 0 and 0 if there are none.
func rowsOf(n, tokens int) (rows, dims int) {
	if n%tokens != 0 {
		tokens = 1
	}
	for rows := tokens; rows <= codec.MaxTokens; rows += tokens {
		if n%rows == 0 && n/rows <= codec.MaxDims {
			return rows, n / rows
		}
	}
	return 0, 0
}

// opaque says whether parts of these shapes are coded without loss only.
func opaque(shapes map[place]*codec.Shape) bool {
	for _, s := range shapes {
		return s.Fields[0].Kind == codec.Opaque // all of them, or none
	}
	return false
}
