package namespace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
)

// full returns a valid descriptor in which every field has a value.
func full() *Descriptor {
	return &Descriptor{
		WeightsID:    [32]byte{1},
		Config:       []ConfigField{{"architecture", "LlamaForCausalLM"}, {"rope.kind", "default"}, {"rope.theta", "500000"}},
		KVDtype:      "float8_e4m3fn",
		Quantization: QuantizationStatic,
		ScalesDigest: [32]byte{2},
		Groups: []Group{
			{Kind: KindFull, Layers: []uint32{0, 2}, KVHeads: 8, Dk: 128, Dv: 64, TokensPerEntry: 1, HeadGroup: 2},
			{Kind: KindSliding, Layers: []uint32{1, 3}, KVHeads: 4, Dk: 64, Dv: 64, TokensPerEntry: 1, Window: 512, HeadGroup: 4},
		},
		ChunkTokens:  256,
		Spans:        []uint32{0, 2},
		Layout:       Layout{Name: LayoutCanonical},
		WeightsEpoch: 7,
	}
}

func fullOpaque() *Descriptor {
	d := full()
	d.Layout = Layout{LayoutOpaque, "vllm-0.26.0", "CPU_ATTN", "vec"}
	for i := range d.Groups {
		d.Groups[i].BlockTokens, d.Groups[i].BlockBytes = 128, 4096
	}
	return d
}

// fieldChanges has one valid change for each field, by the name that Diff
// gives it.
var fieldChanges = []struct {
	field  string
	base   func() *Descriptor
	change func(*Descriptor)
}{
	{"weights_id", full, func(d *Descriptor) { d.WeightsID[31] = 1 }},
	{"config.rope.theta", full, func(d *Descriptor) { d.Config[2].Value = "10000" }},
	{"config.rope.scaling", full, func(d *Descriptor) {
		d.Config = slices.Insert(d.Config, 2, ConfigField{"rope.scaling", "yarn"})
	}},
	{"config.architecture", full, func(d *Descriptor) { d.Config = d.Config[1:] }},
	{"kv_dtype", full, func(d *Descriptor) { d.KVDtype = "float8_e5m2" }},
	{"quantization", fullOpaque, func(d *Descriptor) { d.Quantization = "per_token_head" }},
	{"scales_digest", full, func(d *Descriptor) { d.ScalesDigest[0] = 3 }},
	{"groups[0].kind", fullOpaque, func(d *Descriptor) {
		d.Groups[0].Kind, d.Groups[0].Dk, d.Groups[0].Dv = KindState, 0, 0
	}},
	{"groups[0].layers", full, func(d *Descriptor) { d.Groups[0].Layers = []uint32{0, 4} }},
	{"groups[0].kv_heads", full, func(d *Descriptor) { d.Groups[0].KVHeads = 6 }},
	{"groups[0].dk", full, func(d *Descriptor) { d.Groups[0].Dk = 64 }},
	{"groups[0].dv", full, func(d *Descriptor) { d.Groups[0].Dv = 128 }},
	{"groups[1].tokens_per_entry", fullOpaque, func(d *Descriptor) { d.Groups[1].TokensPerEntry = 4 }},
	{"groups[1].window", full, func(d *Descriptor) { d.Groups[1].Window = 513 }},
	{"groups[1].head_group", full, func(d *Descriptor) { d.Groups[1].HeadGroup = 1 }},
	{"groups[0].block_tokens", fullOpaque, func(d *Descriptor) { d.Groups[0].BlockTokens = 64 }},
	{"groups[0].block_bytes", fullOpaque, func(d *Descriptor) { d.Groups[0].BlockBytes = 8192 }},
	{"chunk_tokens", full, func(d *Descriptor) { d.ChunkTokens = 512 }},
	{"spans", full, func(d *Descriptor) { d.Spans = []uint32{0} }},
	{"layout.name", full, func(d *Descriptor) { *d = *fullOpaque() }},
	{"layout.engine", fullOpaque, func(d *Descriptor) { d.Layout.Engine = "vllm-0.26.1" }},
	{"layout.backend", fullOpaque, func(d *Descriptor) { d.Layout.Backend = "FLASH_ATTN" }},
	{"layout.isa", fullOpaque, func(d *Descriptor) { d.Layout.ISA = "amx" }},
	{"weights_epoch", full, func(d *Descriptor) { d.WeightsEpoch = 8 }},
}

func TestEveryFieldChangesTheFingerprint(t *testing.T) {
	seen := map[Fingerprint]string{full().Fingerprint(): "full", fullOpaque().Fingerprint(): "opaque"}
	covered := map[string]bool{}
	for _, c := range fieldChanges {
		t.Run(c.field, func(t *testing.T) {
			a, b := c.base(), c.base()
			require.NoError(t, a.Validate())
			c.change(b)
			require.NoError(t, b.Validate())
			if c.field != "layout.name" {
				fp := b.Fingerprint()
				require.Empty(t, seen[fp])
				seen[fp] = c.field
			}
			require.NotEqual(t, a.Fingerprint(), b.Fingerprint())
			var names []string
			for _, d := range Diff(a, b) {
				names = append(names, d.Field)
				require.NotEqual(t, d.A, d.B)
			}
			require.Contains(t, names, c.field)
		})
		covered[c.field] = true
	}
	// Every field that exists has its row above.
	for _, f := range fullOpaque().Fields() {
		other := f.Name
		for _, g := range []string{"groups[0]", "groups[1]"} {
			if len(other) > len(g) && other[:len(g)] == g {
				require.True(t, covered["groups[0]"+other[len(g):]] || covered["groups[1]"+other[len(g):]], f.Name)
				other = ""
			}
		}
		if other != "" && other != "config.rope.kind" {
			require.True(t, covered[other], f.Name)
		}
	}
}

func TestDiff(t *testing.T) {
	a, b := full(), full()
	require.Empty(t, Diff(a, b))
	b.Groups = b.Groups[:1]
	b.Config = append(b.Config, ConfigField{"x", "1"})
	got := Diff(a, b)
	require.Equal(t, FieldDifference{"groups[1].kind", "sliding", ""}, got[0])
	require.Equal(t, FieldDifference{"config.x", "", "1"}, got[len(got)-1])
	require.Len(t, got, 11)
}

// The stories that identity exists for. Each pair must never hit.
func TestScenarios(t *testing.T) {
	type change = func(*Descriptor)
	for name, c := range map[string]change{
		"another fine-tune at the same path":    func(d *Descriptor) { d.WeightsID[5]++ },
		"RoPE scaling override on the flags":    func(d *Descriptor) { d.Config[1].Value = "yarn" },
		"recalibrated fp8 scales":               func(d *Descriptor) { d.ScalesDigest[9]++ },
		"weights reloaded in place":             func(d *Descriptor) { d.WeightsEpoch++ },
		"another cut for tensor parallelism":    func(d *Descriptor) { d.Groups[0].HeadGroup = 1 },
		"K and V widths exchanged":              func(d *Descriptor) { d.Groups[0].Dk, d.Groups[0].Dv = 64, 128 },
		"groups listed in another order":        func(d *Descriptor) { slices.Reverse(d.Groups) },
		"a layer moved to the other group":      func(d *Descriptor) { d.Groups[0].Layers, d.Groups[1].Layers = []uint32{0}, []uint32{1, 2, 3} },
		"the engine computes in another type":   func(d *Descriptor) { d.Config = append(d.Config, ConfigField{"zz", "float16"}) },
		"a config name moved into the value":    func(d *Descriptor) { d.Config = []ConfigField{{"architecture", "LlamaForCausalLM" + "rope.kind"}} },
		"pipeline stages cut at another layer":  func(d *Descriptor) { d.Spans = []uint32{0, 3} },
		"a smaller sliding window":              func(d *Descriptor) { d.Groups[1].Window = 256 },
		"the same bytes kept as engine's pages": func(d *Descriptor) { *d = *fullOpaque() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := full(), full()
			c(b)
			require.NoError(t, b.Validate())
			require.NotEqual(t, a.Fingerprint(), b.Fingerprint())
			require.NotEmpty(t, Diff(a, b))
		})
	}
}

func TestParts(t *testing.T) {
	d := full()
	parts := d.Parts()
	var got []string
	var sum uint64
	for _, p := range parts {
		got = append(got, fmt.Sprint(p.Span, p.Group, p.HeadGroup, " layers ", p.Layers, " heads ", p.FirstHead, "+", p.Heads))
		require.Equal(t, p.LayerBytes*uint64(len(p.Layers)), p.RawLength)
		require.Equal(t, uint64(p.Heads)*256*uint64(d.Groups[p.Group].Dk+d.Groups[p.Group].Dv), p.LayerBytes)
		sum += p.RawLength
	}
	require.Equal(t, []string{
		"0 0 0 layers [0] heads 0+2", "0 0 1 layers [0] heads 2+2", "0 0 2 layers [0] heads 4+2", "0 0 3 layers [0] heads 6+2",
		"0 1 0 layers [1] heads 0+4",
		"1 0 0 layers [2] heads 0+2", "1 0 1 layers [2] heads 2+2", "1 0 2 layers [2] heads 4+2", "1 0 3 layers [2] heads 6+2",
		"1 1 0 layers [3] heads 0+4",
	}, got)
	// Cut or not, a chunk has the same bytes.
	require.Equal(t, uint64(256*(2*8*192+2*4*128)), sum)
	require.Equal(t, sum, d.ChunkBytes())
}

// A group need not have layers in every span.
func TestPartsSkipEmptyGroups(t *testing.T) {
	d := full()
	d.Groups[1].Layers = []uint32{3}
	require.NoError(t, d.Validate())
	for _, p := range d.Parts() {
		require.NotEmpty(t, p.Layers)
		require.False(t, p.Span == 0 && p.Group == 1)
	}
}

func TestDefaultHeadGroup(t *testing.T) {
	for _, c := range []struct {
		layers int
		heads  uint32
		want   uint32
	}{
		{1, 8, 8},   // 8 heads are 1 MiB
		{2, 8, 4},   // of 128 KiB for each head and layer
		{3, 8, 4},   // 3 heads would do, but do not divide 8
		{8, 8, 1},   //
		{1, 2, 2},   // too small whatever one does
		{1, 12, 12}, // 8 does not divide 12
		{2, 12, 4},
	} {
		d := full()
		d.KVDtype, d.Quantization, d.ScalesDigest = "bfloat16", QuantizationNone, [32]byte{}
		d.Spans = []uint32{0}
		d.Groups = d.Groups[:1]
		d.Groups[0].Layers = nil
		for i := range c.layers {
			d.Groups[0].Layers = append(d.Groups[0].Layers, uint32(i))
		}
		d.Groups[0].KVHeads, d.Groups[0].Dk, d.Groups[0].Dv = c.heads, 128, 128
		require.Equal(t, c.want, DefaultHeadGroup(d, 0), "%+v", c)
		require.Equal(t, uint32(2), d.Groups[0].HeadGroup, "the descriptor was changed")
	}
	// The smallest span decides.
	d := full()
	d.Groups[0].Layers, d.Groups[0].Dk, d.Groups[0].Dv = []uint32{0, 1, 4}, 2048, 2048
	require.Equal(t, uint32(1), DefaultHeadGroup(d, 0))
	d.Groups[0].Dk, d.Groups[0].Dv = 1024, 1024
	require.Equal(t, uint32(2), DefaultHeadGroup(d, 0))
	// A span without layers of the group has no part to be too small.
	d.Groups[0].Layers = []uint32{0, 1}
	require.NoError(t, d.Validate())
	require.Equal(t, uint32(1), DefaultHeadGroup(d, 0))
	// Opaque parts cannot be cut.
	require.Equal(t, uint32(2), DefaultHeadGroup(fullOpaque(), 0))
}

func TestValidateNamesFieldValueAndLimit(t *testing.T) {
	d := full()
	d.ChunkTokens = 1025
	err := d.Validate()
	require.ErrorIs(t, err, fault.Invalid)
	var e *fault.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "namespace.chunk_tokens", e.Field)
	require.Equal(t, "1025", e.Value)
	require.Equal(t, "64..1024", e.Limit)
}

// The reader itself says what is wrong, before the encoding is compared.
func TestDecodeSaysWhatIsWrong(t *testing.T) {
	good := full().Encode()
	for want, b := range map[string][]byte{
		"field 1 is missing":                        nil,
		"ends inside a length":                      good[:3],
		"a length of 4 reaches past the 3 bytes":    good[:8],
		"field 2 expected, found 11":                append(good[:9:9], 11),
		"field 1 has 0 bytes instead of 4":          {1, 0, 0, 0, 0},
		"1 bytes follow the last field":             append(good[:len(good):len(good)], 0),
		"unknown format version (value 2, limit 1)": {1, 4, 0, 0, 0, 2, 0, 0, 0},
	} {
		_, err := Decode(b)
		require.ErrorContains(t, err, want)
	}
}

func TestTooLong(t *testing.T) {
	_, err := Decode(make([]byte, 1<<20+1))
	require.ErrorContains(t, err, "too long (value 1048577, limit 1048576)")
	_, err = Decode(make([]byte, 1<<20))
	require.ErrorContains(t, err, "field 1 expected")
	d := full()
	d.Config = nil
	for i := range 200 {
		d.Config = append(d.Config, ConfigField{fmt.Sprintf("n%04d", i), strings.Repeat("v", 4000)})
	}
	require.ErrorContains(t, d.Validate(), "namespace.config: too many bytes (value 801000, limit 524288)")
}

// Whatever is valid can be sent: its encoding is within the limit.
func TestLargestIsDecodable(t *testing.T) {
	d := fullOpaque()
	d.Config = nil
	for i := range MaxConfigFields {
		d.Config = append(d.Config, ConfigField{fmt.Sprintf("n%04d", i), strings.Repeat("v", 507)})
	}
	back, err := Decode(d.Encode())
	require.NoError(t, err)
	require.Equal(t, d, back)
}
