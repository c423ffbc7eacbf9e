package namespace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
)

// tiny returns one full group whose parts are small, so that one limit after
// the other can be reached without another.
func tiny() *Descriptor {
	return &Descriptor{
		WeightsID: [32]byte{1}, KVDtype: "bfloat16", Quantization: QuantizationNone,
		Groups:      []Group{{Kind: KindFull, Layers: []uint32{0}, KVHeads: 1, Dk: 1, Dv: 1, TokensPerEntry: 1, HeadGroup: 1}},
		ChunkTokens: 64, Spans: []uint32{0}, Layout: Layout{Name: LayoutCanonical},
	}
}

func tinyOpaque() *Descriptor {
	d := tiny()
	d.Layout = Layout{LayoutOpaque, "e", "b", "i"}
	d.Groups[0].BlockTokens, d.Groups[0].BlockBytes = 64, 1
	return d
}

func ascending(n int) (out []uint32) {
	for i := range n {
		out = append(out, uint32(i))
	}
	return out
}

// Each limit may be reached and not passed.
func TestLimits(t *testing.T) {
	type D = *Descriptor
	text := strings.Repeat
	for _, c := range []struct {
		field string
		base  func() *Descriptor
		// set makes a descriptor at the limit with more = 0, past it with 1.
		set func(d D, more int)
	}{
		{"config", tiny, func(d D, more int) {
			for i := range 1024 + more {
				d.Config = append(d.Config, ConfigField{fmt.Sprintf("n%04d", i), "v"})
			}
		}},
		{"config", tiny, func(d D, more int) {
			for i := range 128 {
				d.Config = append(d.Config, ConfigField{fmt.Sprintf("n%07d", i), text("v", 4088)})
			}
			d.Config[0].Value += text("v", more)
		}},
		{"config", tiny, func(d D, more int) { d.Config = []ConfigField{{text("n", 128+more), "v"}} }},
		{"config.n", tiny, func(d D, more int) { d.Config = []ConfigField{{"n", text("v", 4096+more)}} }},
		{"kv_dtype", tinyOpaque, func(d D, more int) { d.KVDtype = text("x", 64+more) }},
		{"quantization", tinyOpaque, func(d D, more int) { d.Quantization = text("x", 64+more) }},
		{"quantization", tinyOpaque, func(d D, more int) { d.Quantization = text("x", 1-more) }},
		{"layout.engine", tinyOpaque, func(d D, more int) { d.Layout.Engine = text("x", 64+more) }},
		{"layout.backend", tinyOpaque, func(d D, more int) { d.Layout.Backend = text("x", 64+more) }},
		{"layout.isa", tinyOpaque, func(d D, more int) { d.Layout.ISA = text("x", 64+more) }},
		{"chunk_tokens", tiny, func(d D, more int) { d.ChunkTokens = uint32(64 - more) }},
		{"chunk_tokens", tiny, func(d D, more int) { d.ChunkTokens = uint32(1024 + more) }},
		{"groups", tiny, func(d D, more int) { d.Groups = slices.Repeat(d.Groups, 16+more) }},
		{"groups[1].layers", tiny, func(d D, more int) {
			d.Groups = slices.Repeat(d.Groups, 2)
			d.Groups[0].Layers, d.Groups[1].Layers = ascending(1000), ascending(24+more)
		}},
		{"groups[0].layers", tiny, func(d D, more int) { d.Groups[0].Layers = []uint32{0, uint32(1023 + more)} }},
		{"groups[0].kv_heads", tiny, func(d D, more int) { d.Groups[0].KVHeads = uint32(1024 + more) }},
		{"groups[0].kv_heads", tiny, func(d D, more int) {
			d.Groups[0].Kind, d.Groups[0].Dv, d.Groups[0].KVHeads = KindLatent, 0, uint32(1+more)
		}},
		{"groups[0].dk", tiny, func(d D, more int) { d.Groups[0].Dk = uint32(65536 + more) }},
		{"groups[0].dv", tiny, func(d D, more int) { d.Groups[0].Dv = uint32(65536 + more) }},
		{"groups[0].dk", tinyOpaque, func(d D, more int) {
			d.Groups[0].Kind, d.Groups[0].Dk, d.Groups[0].Dv = KindState, uint32(more), 0
		}},
		{"groups[0].window", tiny, func(d D, more int) {
			d.Groups[0].Kind, d.Groups[0].Window = KindSliding, uint32(1<<30+more)
		}},
		{"groups[0].window", tiny, func(d D, more int) {
			d.Groups[0].Kind, d.Groups[0].Dv, d.Groups[0].Window = KindLatent, 0, uint32(1<<30+more)
		}},
		{"groups[0].block_bytes", tinyOpaque, func(d D, more int) { d.Groups[0].BlockBytes = uint32(64<<20 + more) }},
		{"groups[0].tokens_per_entry", tinyOpaque, func(d D, more int) { d.Groups[0].TokensPerEntry = uint32(64 + more) }},
		{"groups[0].tokens_per_entry", tinyOpaque, func(d D, more int) { d.Groups[0].TokensPerEntry = uint32(1 - more) }},
		{"spans", tiny, func(d D, more int) { d.Groups[0].Layers, d.Spans = ascending(1000), ascending(256+more) }},
		{"", tiny, func(d D, more int) {
			d.Groups[0].KVHeads = 1024
			d.Groups[0].Layers, d.Spans = ascending(4), ascending(4)
			if more > 0 {
				d.Groups = append(d.Groups, tiny().Groups[0])
			}
		}},
		// 64 MiB = 1024 tokens x 32768 elements x 2 bytes.
		{"groups[0]", tiny, func(d D, more int) {
			d.ChunkTokens, d.Groups[0].Dk, d.Groups[0].Dv = 1024, 16384, uint32(16384+more)
		}},
		{"", tiny, func(d D, more int) {
			d.ChunkTokens, d.Groups[0].Dk, d.Groups[0].Dv, d.Groups[0].KVHeads = 1024, 16384, 16384, 16
			if more > 0 {
				d.Groups = append(d.Groups, tiny().Groups[0])
			}
		}},
	} {
		at, past := c.base(), c.base()
		c.set(at, 0)
		require.NoError(t, at.Validate(), c.field)
		back, err := Decode(at.Encode())
		require.NoError(t, err, c.field)
		require.Equal(t, at.Encode(), back.Encode())
		c.set(past, 1)
		err = past.Validate()
		var e *fault.Error
		require.ErrorAs(t, err, &e, c.field)
		require.Equal(t, fault.Invalid, e.Kind)
		require.Equal(t, strings.TrimSuffix("namespace."+c.field, "."), e.Field)
	}
}
