package namespace

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// FieldDifference is one field that differs. A and B are printed values; ""
// where one side does not have the field.
type FieldDifference struct {
	Field, A, B string
}

// Diff names every field in which a and b differ, in the order of the
// encoding: "weights_id", "config.rope.theta", "groups[0].dk",
// "layout.engine". It is empty if and only if the encodings are equal.
func Diff(a, b *Descriptor) []FieldDifference {
	fa, fb := a.flatten(), b.flatten()
	at := make(map[string]string, len(fb))
	for _, f := range fb {
		at[f.Name] = f.Value
	}
	var out []FieldDifference
	seen := make(map[string]bool, len(fa))
	for _, f := range fa {
		seen[f.Name] = true
		if v := at[f.Name]; v != f.Value {
			out = append(out, FieldDifference{f.Name, f.Value, v})
		}
	}
	for _, f := range fb {
		if !seen[f.Name] && f.Value != "" {
			out = append(out, FieldDifference{f.Name, "", f.Value})
		}
	}
	return out
}

// Fields prints every field in the order of the encoding under the names that
// Diff uses.
func (d *Descriptor) Fields() []ConfigField { return d.flatten() }

func (d *Descriptor) flatten() []ConfigField {
	var out []ConfigField
	add := func(name string, v any) { out = append(out, ConfigField{name, fmt.Sprint(v)}) }
	add("weights_id", hex.EncodeToString(d.WeightsID[:]))
	for _, f := range d.Config {
		add("config."+f.Name, f.Value)
	}
	add("kv_dtype", d.KVDtype)
	add("quantization", d.Quantization)
	scales := "none"
	if d.ScalesDigest != ([32]byte{}) {
		scales = hex.EncodeToString(d.ScalesDigest[:])
	}
	add("scales_digest", scales)
	for i := range d.Groups {
		g := &d.Groups[i]
		at := fmt.Sprintf("groups[%d].", i)
		add(at+"kind", g.Kind)
		add(at+"layers", ranges(g.Layers))
		add(at+"kv_heads", g.KVHeads)
		add(at+"dk", g.Dk)
		add(at+"dv", g.Dv)
		add(at+"tokens_per_entry", g.TokensPerEntry)
		add(at+"window", g.Window)
		add(at+"head_group", g.HeadGroup)
		add(at+"block_tokens", g.BlockTokens)
		add(at+"block_bytes", g.BlockBytes)
	}
	add("chunk_tokens", d.ChunkTokens)
	add("spans", ranges(d.Spans))
	add("layout.name", d.Layout.Name)
	add("layout.engine", d.Layout.Engine)
	add("layout.backend", d.Layout.Backend)
	add("layout.isa", d.Layout.ISA)
	add("weights_epoch", d.WeightsEpoch)
	return out
}

// ranges prints ascending numbers as "0-3,5".
func ranges(v []uint32) string {
	var b strings.Builder
	for i := 0; i < len(v); {
		j := i
		for j+1 < len(v) && v[j+1] == v[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, v[i])
		if j > i {
			fmt.Fprintf(&b, "-%d", v[j])
		}
		i = j + 1
	}
	return b.String()
}
