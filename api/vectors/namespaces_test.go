package vectors_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/larderkv/larder/api/namespace"
	"github.com/stretchr/testify/require"
)

type namespaceVector struct {
	Name              string        `json:"name"`
	Descriptor        namespaceJSON `json:"descriptor"`
	Encoding          hexBytes      `json:"encoding"`
	Fingerprint       hexBytes      `json:"fingerprint"`
	DefaultHeadGroups []uint32      `json:"default_head_groups"`
	ChunkBytes        uint64        `json:"chunk_bytes"`
	Parts             []partSpec    `json:"parts"`
}

type namespaceJSON struct {
	WeightsID    hexBytes    `json:"weights_id"`
	Config       [][2]string `json:"config"`
	KVDtype      string      `json:"kv_dtype"`
	Quantization string      `json:"quantization"`
	ScalesDigest hexBytes    `json:"scales_digest"`
	Groups       []groupJSON `json:"groups"`
	ChunkTokens  uint32      `json:"chunk_tokens"`
	Spans        []uint32    `json:"spans"`
	Layout       [4]string   `json:"layout"`
	WeightsEpoch uint64      `json:"weights_epoch"`
}

type groupJSON struct {
	Kind           string   `json:"kind"`
	Layers         []uint32 `json:"layers"`
	KVHeads        uint32   `json:"kv_heads"`
	Dk             uint32   `json:"dk"`
	Dv             uint32   `json:"dv"`
	TokensPerEntry uint32   `json:"tokens_per_entry"`
	Window         uint32   `json:"window"`
	HeadGroup      uint32   `json:"head_group"`
	BlockTokens    uint32   `json:"block_tokens"`
	BlockBytes     uint32   `json:"block_bytes"`
}

type partSpec struct {
	Group     uint8  `json:"group"`
	Span      uint8  `json:"span"`
	HeadGroup uint16 `json:"head_group"`
	FirstHead uint32 `json:"first_head"`
	Heads     uint32 `json:"heads"`
	// Layers are first, last and number of ids.
	Layers    [3]uint32 `json:"layers"`
	RawLength uint64    `json:"raw_length"`
}

type namespacesFile struct {
	Namespaces  []namespaceVector  `json:"namespaces"`
	Differences []differenceVector `json:"differences"`
	Invalid     []invalidInput     `json:"invalid"`
}

type differenceVector struct {
	A      string      `json:"a"`
	B      string      `json:"b"`
	Fields [][3]string `json:"fields"`
}

func digest(b byte) (d [32]byte) {
	copy(d[:], bytes.Repeat([]byte{b}, 32))
	return d
}

func layers(from, to, step uint32) (out []uint32) {
	for i := from; i < to; i += step {
		out = append(out, i)
	}
	return out
}

func config(pairs ...string) (out []namespace.ConfigField) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, namespace.ConfigField{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

func llama() *namespace.Descriptor {
	return &namespace.Descriptor{
		WeightsID:    digest(0x11),
		Config:       config("architecture", "LlamaForCausalLM", "compute.dtype", "bfloat16", "rms_norm_eps", "1e-05", "rope.kind", "default", "rope.theta", "500000"),
		KVDtype:      "bfloat16",
		Quantization: namespace.QuantizationNone,
		Groups:       []namespace.Group{{Kind: namespace.KindFull, Layers: layers(0, 12, 1), KVHeads: 2, Dk: 128, Dv: 128, TokensPerEntry: 1, HeadGroup: 1}},
		ChunkTokens:  256,
		Spans:        []uint32{0},
		Layout:       namespace.Layout{Name: namespace.LayoutCanonical},
	}
}

// with returns a changed copy whose groups and spans are its own.
func with(d *namespace.Descriptor, change func(*namespace.Descriptor)) *namespace.Descriptor {
	c := *d
	c.Config = slices.Clone(d.Config)
	c.Groups = slices.Clone(d.Groups)
	c.Spans = slices.Clone(d.Spans)
	change(&c)
	return &c
}

func opaque() *namespace.Descriptor {
	return with(llama(), func(d *namespace.Descriptor) {
		d.Layout = namespace.Layout{Name: namespace.LayoutOpaque, Engine: "vllm-0.26.0", Backend: "CPU_ATTN", ISA: "vec"}
		d.Groups[0].HeadGroup = 2
		d.Groups[0].BlockTokens = 128
		d.Groups[0].BlockBytes = 131072
	})
}

type named struct {
	name string
	d    *namespace.Descriptor
}

func validNamespaces() []named {
	type D = namespace.Descriptor
	return []named{
		{"llama", llama()},
		{"llama-8b-shape", with(llama(), func(d *D) {
			d.Groups[0] = namespace.Group{Kind: namespace.KindFull, Layers: layers(0, 32, 1), KVHeads: 8, Dk: 128, Dv: 128, TokensPerEntry: 1, HeadGroup: 1}
		})},
		{"two-pipeline-stages", with(llama(), func(d *D) { d.Spans = []uint32{0, 7} })},
		{"no-config", with(llama(), func(d *D) { d.Config = nil })},
		{"rope-scaling-override", with(llama(), func(d *D) {
			d.Config = config("architecture", "LlamaForCausalLM", "compute.dtype", "bfloat16", "rms_norm_eps", "1e-05",
				"rope.factor", "8", "rope.kind", "llama3", "rope.theta", "500000")
		})},
		{"fp8-static", with(llama(), func(d *D) {
			d.KVDtype, d.Quantization, d.ScalesDigest = "float8_e4m3fn", namespace.QuantizationStatic, digest(0x22)
		})},
		{"hybrid-sliding", with(llama(), func(d *D) {
			d.Groups = []namespace.Group{
				{Kind: namespace.KindFull, Layers: []uint32{5, 11, 17, 23}, KVHeads: 4, Dk: 256, Dv: 256, TokensPerEntry: 1, HeadGroup: 2},
				{Kind: namespace.KindSliding, Layers: slices.DeleteFunc(layers(0, 26, 1), func(i uint32) bool { return i%6 == 5 }), KVHeads: 4, Dk: 256, Dv: 256, TokensPerEntry: 1, Window: 1024, HeadGroup: 1},
			}
			d.Spans = []uint32{0, 13}
		})},
		{"latent", with(llama(), func(d *D) {
			d.Groups = []namespace.Group{{Kind: namespace.KindLatent, Layers: layers(0, 61, 1), KVHeads: 1, Dk: 576, TokensPerEntry: 1, HeadGroup: 1}}
		})},
		{"different-dk-dv", with(llama(), func(d *D) {
			d.Groups[0].Dk, d.Groups[0].Dv, d.Groups[0].KVHeads, d.Groups[0].HeadGroup = 192, 128, 6, 3
			d.ChunkTokens = 320
		})},
		{"opaque", opaque()},
		{"opaque-state", with(opaque(), func(d *D) {
			d.ChunkTokens = 528
			d.Quantization = "per_token_head"
			d.Groups = []namespace.Group{
				{Kind: namespace.KindState, Layers: layers(0, 24, 2), KVHeads: 4, TokensPerEntry: 528, HeadGroup: 1, BlockTokens: 528, BlockBytes: 270336},
				{Kind: namespace.KindFull, Layers: layers(1, 24, 2), KVHeads: 8, Dk: 128, Dv: 128, TokensPerEntry: 1, HeadGroup: 2, BlockTokens: 528, BlockBytes: 540672},
			}
		})},
		{"largest-numbers", with(llama(), func(d *D) {
			d.WeightsEpoch = 1<<64 - 1
			d.ChunkTokens = 1024
			d.Groups[0].Layers = []uint32{1023}
		})},
	}
}

func invalidNamespaces() []named {
	type D = namespace.Descriptor
	group := func(change func(*namespace.Group)) *D {
		return with(llama(), func(d *D) { change(&d.Groups[0]) })
	}
	type G = namespace.Group
	return []named{
		{"zero weights id", with(llama(), func(d *D) { d.WeightsID = digest(0) })},
		{"config names descend", with(llama(), func(d *D) { d.Config = config("b", "1", "a", "1") })},
		{"config name twice", with(llama(), func(d *D) { d.Config = config("a", "1", "a", "2") })},
		{"config name empty", with(llama(), func(d *D) { d.Config = config("", "1") })},
		{"config name upper case", with(llama(), func(d *D) { d.Config = config("A", "1") })},
		{"config name with NUL", with(llama(), func(d *D) { d.Config = config("a\x00", "1") })},
		{"config value empty", with(llama(), func(d *D) { d.Config = config("a", "") })},
		{"config value with space", with(llama(), func(d *D) { d.Config = config("a", "1 2") })},
		{"config value with NUL", with(llama(), func(d *D) { d.Config = config("a", "1\x00") })},
		{"config value not ASCII", with(llama(), func(d *D) { d.Config = config("a", "\u00e9") })},
		{"dtype unknown", with(llama(), func(d *D) { d.KVDtype = "bf16" })},
		{"dtype empty", with(llama(), func(d *D) { d.KVDtype = "" })},
		{"fp8 without quantization", with(llama(), func(d *D) { d.KVDtype = "float8_e4m3fn" })},
		{"fp8 without scales", with(llama(), func(d *D) { d.KVDtype, d.Quantization = "float8_e4m3fn", "static" })},
		{"scales without fp8", with(llama(), func(d *D) { d.ScalesDigest = digest(1) })},
		{"opaque static without scales", with(opaque(), func(d *D) { d.Quantization = "static" })},
		{"opaque scales without quantization", with(opaque(), func(d *D) { d.ScalesDigest = digest(1) })},
		{"chunk too short", with(llama(), func(d *D) { d.ChunkTokens = 63 })},
		{"chunk too long", with(llama(), func(d *D) { d.ChunkTokens = 1025 })},
		{"no group", with(llama(), func(d *D) { d.Groups = nil })},
		{"17 groups", with(llama(), func(d *D) { d.Groups = slices.Repeat(d.Groups, 17) })},
		{"kind 0", group(func(g *G) { g.Kind = 0 })},
		{"kind 5", group(func(g *G) { g.Kind = 5 })},
		{"state in the canonical layout", group(func(g *G) { g.Kind, g.Dk, g.Dv = namespace.KindState, 0, 0 })},
		{"no layer", group(func(g *G) { g.Layers = nil })},
		{"layers descend", group(func(g *G) { g.Layers = []uint32{1, 0} })},
		{"layer twice", group(func(g *G) { g.Layers = []uint32{0, 0} })},
		{"layer 1024", group(func(g *G) { g.Layers = []uint32{1024} })},
		{"1025 layers in two groups", with(llama(), func(d *D) {
			d.Groups = []G{d.Groups[0], d.Groups[0]}
			d.Groups[0].Layers, d.Groups[1].Layers = layers(0, 1024, 1), []uint32{0}
		})},
		{"no head", group(func(g *G) { g.KVHeads = 0 })},
		{"1025 heads", group(func(g *G) { g.KVHeads = 1025 })},
		{"head group 0", group(func(g *G) { g.HeadGroup = 0 })},
		{"head group does not divide", group(func(g *G) { g.KVHeads, g.HeadGroup = 8, 3 })},
		{"no K", group(func(g *G) { g.Dk = 0 })},
		{"no V", group(func(g *G) { g.Dv = 0 })},
		{"K too wide", group(func(g *G) { g.Dk = 1<<16 + 1 })},
		{"window on full", group(func(g *G) { g.Window = 1 })},
		{"sliding without window", group(func(g *G) { g.Kind = namespace.KindSliding })},
		{"latent with V", group(func(g *G) { g.Kind, g.KVHeads = namespace.KindLatent, 1 })},
		{"latent with heads", group(func(g *G) { g.Kind, g.Dv = namespace.KindLatent, 0 })},
		{"two tokens for each entry", group(func(g *G) { g.TokensPerEntry = 2 })},
		{"block tokens in the canonical layout", group(func(g *G) { g.BlockTokens = 16 })},
		{"block bytes in the canonical layout", group(func(g *G) { g.BlockBytes = 16 })},
		{"opaque block does not divide", with(opaque(), func(d *D) { d.Groups[0].BlockTokens = 96 })},
		{"opaque block 0", with(opaque(), func(d *D) { d.Groups[0].BlockTokens = 0 })},
		{"opaque entry does not divide", with(opaque(), func(d *D) { d.Groups[0].TokensPerEntry = 3 })},
		{"opaque block without bytes", with(opaque(), func(d *D) { d.Groups[0].BlockBytes = 0 })},
		{"opaque block too large", with(opaque(), func(d *D) { d.Groups[0].BlockBytes = 64<<20 + 1 })},
		{"no span", with(llama(), func(d *D) { d.Spans = nil })},
		{"spans begin after 0", with(llama(), func(d *D) { d.Spans = []uint32{1} })},
		{"spans descend", with(llama(), func(d *D) { d.Spans = []uint32{0, 5, 4} })},
		{"span without layers", with(llama(), func(d *D) { d.Spans = []uint32{0, 12} })},
		{"layout unknown", with(llama(), func(d *D) { d.Layout.Name = "canonical/2" })},
		{"layout empty", with(llama(), func(d *D) { d.Layout.Name = "" })},
		{"canonical with engine", with(llama(), func(d *D) { d.Layout.Engine = "vllm" })},
		{"opaque without ISA", with(opaque(), func(d *D) { d.Layout.ISA = "" })},
		{"part too large", group(func(g *G) { g.Layers, g.KVHeads, g.HeadGroup = layers(0, 1024, 1), 2, 2 })},
		{"chunk too large", group(func(g *G) { g.Layers, g.KVHeads = layers(0, 128, 1), 128 })},
		{"too many parts", with(llama(), func(d *D) {
			d.Groups[0].Dk, d.Groups[0].Dv, d.Groups[0].KVHeads = 1, 1, 1024
			d.Spans = []uint32{0, 1, 2, 3, 4}
		})},
	}
}

// brokenEncodings are not the encoding of anything.
func brokenEncodings() []struct {
	name string
	b    []byte
} {
	good := llama().Encode()
	at := func(offset int, v ...byte) []byte {
		b := slices.Clone(good)
		copy(b[offset:], v)
		return b
	}
	field := func(tag byte, v []byte) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{tag}, uint32(len(v))), v...)
	}
	item := func(v []byte) []byte { return field(0, v)[1:] }
	content := map[byte][]byte{}
	for rest := good; len(rest) > 0; {
		n := 5 + int(binary.LittleEndian.Uint32(rest[1:]))
		content[rest[0]], rest = rest[5:n], rest[n:]
	}
	// with is good with other content in one field.
	with := func(tag byte, v []byte) (out []byte) {
		for t := byte(1); t <= 11; t++ {
			if t == tag {
				out = append(out, field(t, v)...)
			} else {
				out = append(out, field(t, content[t])...)
			}
		}
		return out
	}
	group, layout := content[7][4:], content[10]
	// The first two fields take 9 and 37 bytes.
	first, second, rest := good[:9], good[9:46], good[46:]
	epoch := len(good) - 13
	chunk := field(8, []byte{0, 1, 0, 0})
	return []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"one byte", []byte{1}},
		{"truncated", good[:len(good)-1]},
		{"trailing byte", append(slices.Clone(good), 0)},
		{"format 2", at(5, 2)},
		{"format 0", at(5, 0)},
		{"fields swapped", slices.Concat(second, first, rest)},
		{"field twice", slices.Concat(first, first, second, rest)},
		{"field missing", slices.Concat(first, rest)},
		{"unknown field at the end", append(slices.Clone(good), field(12, nil)...)},
		{"length 2^32-1", at(10, 0xff, 0xff, 0xff, 0xff)},
		{"length big-endian", at(1, 0, 0, 0, 4)},
		{"weights id of 31 bytes", slices.Concat(first, field(2, second[5:36]), rest)},
		{"epoch of 4 bytes", slices.Concat(good[:epoch], field(11, make([]byte, 4)))},
		{"epoch missing", good[:epoch]},
		{"scales digest all zero", bytes.Replace(good, []byte{6, 0, 0, 0, 0, 7}, append(field(6, make([]byte, 32)), 7), 1)},
		{"scales digest of 1 byte", bytes.Replace(good, []byte{6, 0, 0, 0, 0, 7}, append(field(6, []byte{1}), 7), 1)},
		{"config name without a value", with(3, item([]byte("a")))},
		{"config value cut", with(3, slices.Concat(item([]byte("a")), []byte{2, 0, 0, 0, '1'}))},
		{"group with an 11th field", with(7, item(append(bytes.Clone(group), field(11, nil)...)))},
		{"group without its last field", with(7, item(group[:len(group)-9]))},
		{"group cut inside its last field", with(7, item(group[:len(group)-1]))},
		{"group of nothing", with(7, item(nil))},
		{"group that begins with layers", with(7, item(group[6:]))},
		{"layout with a fifth field", with(10, append(bytes.Clone(layout), field(5, nil)...))},
		{"layout without its last field", with(10, layout[:len(layout)-5])},
		{"spans of 3 bytes", bytes.Replace(good, append(chunk, field(9, make([]byte, 4))...), append(chunk, field(9, make([]byte, 3))...), 1)},
	}
}

func TestNamespaces(t *testing.T) {
	var file namespacesFile
	byName := map[string]*namespace.Descriptor{}
	for _, n := range validNamespaces() {
		require.NoError(t, n.d.Validate(), n.name)
		byName[n.name] = n.d
		fp := n.d.Fingerprint()
		v := namespaceVector{Name: n.name, Descriptor: describe(n.d), Encoding: n.d.Encode(), Fingerprint: fp[:], ChunkBytes: n.d.ChunkBytes()}
		for g := range n.d.Groups {
			v.DefaultHeadGroups = append(v.DefaultHeadGroups, namespace.DefaultHeadGroup(n.d, g))
		}
		for _, p := range n.d.Parts() {
			v.Parts = append(v.Parts, partSpec{p.Group, p.Span, p.HeadGroup, p.FirstHead, p.Heads,
				[3]uint32{p.Layers[0], p.Layers[len(p.Layers)-1], uint32(len(p.Layers))}, p.RawLength})
		}
		back, err := namespace.Decode(v.Encoding)
		require.NoError(t, err, n.name)
		require.Equal(t, v.Encoding, hexBytes(back.Encode()), n.name)
		file.Namespaces = append(file.Namespaces, v)
	}
	for _, pair := range [][2]string{{"llama", "rope-scaling-override"}, {"llama", "fp8-static"}, {"llama", "opaque"}, {"two-pipeline-stages", "hybrid-sliding"}, {"llama", "llama"}} {
		v := differenceVector{A: pair[0], B: pair[1], Fields: [][3]string{}}
		for _, d := range namespace.Diff(byName[pair[0]], byName[pair[1]]) {
			v.Fields = append(v.Fields, [3]string{d.Field, d.A, d.B})
		}
		file.Differences = append(file.Differences, v)
	}
	for _, n := range invalidNamespaces() {
		b := n.d.Encode()
		_, err := namespace.Decode(b)
		file.Invalid = append(file.Invalid, rejected(t, n.name, b, err))
	}
	for _, n := range brokenEncodings() {
		_, err := namespace.Decode(n.b)
		file.Invalid = append(file.Invalid, rejected(t, n.name, n.b, err))
	}
	golden(t, "namespaces.json", file)
}

func describe(d *namespace.Descriptor) namespaceJSON {
	out := namespaceJSON{
		WeightsID: d.WeightsID[:], Config: [][2]string{}, KVDtype: d.KVDtype, Quantization: d.Quantization,
		ScalesDigest: hexBytes{}, ChunkTokens: d.ChunkTokens, Spans: d.Spans, WeightsEpoch: d.WeightsEpoch,
		Layout: [4]string{d.Layout.Name, d.Layout.Engine, d.Layout.Backend, d.Layout.ISA},
	}
	if d.ScalesDigest != ([32]byte{}) {
		out.ScalesDigest = d.ScalesDigest[:]
	}
	for _, f := range d.Config {
		out.Config = append(out.Config, [2]string{f.Name, f.Value})
	}
	for _, g := range d.Groups {
		out.Groups = append(out.Groups, groupJSON{g.Kind.String(), g.Layers, g.KVHeads, g.Dk, g.Dv, g.TokensPerEntry, g.Window, g.HeadGroup, g.BlockTokens, g.BlockBytes})
	}
	return out
}
