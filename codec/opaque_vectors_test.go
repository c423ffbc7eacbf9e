package codec

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const opaqueFile = "../api/vectors/opaque.json"

// newOpaqueVectors are the cases, without their answers.
func newOpaqueVectors(tb testing.TB) []vector {
	bytesOf := func(dims int) []fieldVector { return []fieldVector{{"opaque", "u8", dims, "lossless", 0}} }
	list := []vector{
		{Name: "bytes", Layers: 2, Heads: 1, Tokens: 40, Fields: bytesOf(32)},
		{Name: "elements of two bytes", Layers: 1, Heads: 1, Tokens: 64, Fields: bytesOf(40)},
		{Name: "elements of four bytes", Layers: 1, Heads: 1, Tokens: 40, Fields: bytesOf(100)},
		{Name: "beside keys, two heads", FirstLayer: 5, Layers: 1, Heads: 2, Tokens: 70, Fields: []fieldVector{{"k", "bf16", 8, "plain", .05}, {"opaque", "u8", 12, "lossless", 0}}, Coarsest: 3},
		{Name: "noise, equal rows", Layers: 2, Heads: 1, Tokens: 10, Fields: bytesOf(30)},
		{Name: "opaque bf16 and fp16", Layers: 1, Heads: 1, Tokens: 80, Fields: []fieldVector{{"opaque", "bf16", 12, "lossless", 0}, {"opaque", "fp16", 6, "lossless", 0}}},
	}
	for i := range list {
		v := &list[i]
		s, _ := v.parse(tb)
		v.Raw = kv(s, uint64(200+i))
		switch v.Name {
		case "elements of two bytes":
			elements(v.Raw, 2, 1)
		case "elements of four bytes":
			elements(v.Raw, 4, 1)
		case "noise, equal rows":
			elements(v.Raw[:300], 301, 1)
			clear(v.Raw[300:])
		}
	}
	return list
}

// Objects of the vectors are decoded for ever. How a later version of the library
// would code them is its own affair: to no more bytes.
func TestOpaqueVectors(t *testing.T) {
	list, write := vectorsOf(t, opaqueFile, newOpaqueVectors)
	modes, planes := map[uint8]bool{}, map[byte]bool{}
	for i := range list {
		v := &list[i]
		s, p := v.parse(t)
		object := encode(t, v.Raw, s, p)
		if *update {
			v.Object = object
		}
		require.LessOrEqual(t, len(object), len(v.Object)+len(v.Object)/50, v.Name)
		h, err := Parse(v.Object)
		require.NoError(t, err)
		for k := range h.Units() {
			if f := &h.Fields[h.unit(k).field]; f.DType == U8 {
				stream, mode := streamOf(t, v.Object, k)
				if modes[mode] = true; mode == baseLossless {
					planes[stream[0]] = true
				}
			}
		}
		if v.Coarsest == 0 {
			require.Equal(t, []byte(v.Raw), decode(t, v.Object, s, 0), v.Name)
		}
		v.checkLevels(t, func(level int) []byte { return decode(t, v.Object, s, level) })
	}
	require.Len(t, modes, 3, "the vectors have every mode of bytes")
	require.Len(t, planes, len(widths), "and every width")
	write()
}
