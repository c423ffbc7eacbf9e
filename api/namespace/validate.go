package namespace

import "fmt"

// Limits on a descriptor.
const (
	MaxEncoded      = 1 << 20
	MaxConfigFields = 1024
	MaxConfigName   = 128
	MaxConfigValue  = 4096
	// MaxConfigBytes bounds names and values together.
	MaxConfigBytes = 512 << 10
	MaxGroups      = 16
	// MaxLayers bounds layer ids (below it) and the layers of all groups
	// together.
	MaxLayers      = 1024
	MaxKVHeads     = 1024
	MaxDim         = 1 << 16
	MaxWindow      = 1 << 30
	MaxSpans       = 256
	MaxParts       = 4096
	MinChunkTokens = 64
	MaxChunkTokens = 1024
	// MaxPartBytes is the largest RawLength.
	MaxPartBytes = 64 << 20
	// MaxChunkBytes is the largest sum over a chunk's parts.
	MaxChunkBytes = 1 << 30
	// MaxToken bounds dtype, quantization and the layout's binding.
	MaxToken = 64
)

// elementBytes knows the element types of the canonical layout.
var elementBytes = map[string]uint32{
	"bfloat16": 2, "float16": 2, "float32": 4,
	"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}

// Validate says whether d may be used; the error is Invalid and names field,
// value and limit.
func (d *Descriptor) Validate() error {
	if d.WeightsID == ([32]byte{}) {
		return invalid("namespace.weights_id", "the weights id is empty")
	}
	if err := d.validateConfig(); err != nil {
		return err
	}
	opaque := d.Layout.Name == LayoutOpaque
	if err := d.validateLayout(opaque); err != nil {
		return err
	}
	if err := d.validateDtype(opaque); err != nil {
		return err
	}
	if d.ChunkTokens < MinChunkTokens || d.ChunkTokens > MaxChunkTokens {
		return invalid("namespace.chunk_tokens", "out of range").With(d.ChunkTokens, "64..1024")
	}
	if err := d.validateGroups(opaque); err != nil {
		return err
	}
	if err := d.validateSpans(); err != nil {
		return err
	}
	return d.validateParts()
}

func (d *Descriptor) validateConfig() error {
	if len(d.Config) > MaxConfigFields {
		return invalid("namespace.config", "too many fields").With(len(d.Config), MaxConfigFields)
	}
	size := 0
	for _, f := range d.Config {
		size += len(f.Name) + len(f.Value)
	}
	if size > MaxConfigBytes {
		return invalid("namespace.config", "too many bytes").With(size, MaxConfigBytes)
	}
	for i, f := range d.Config {
		if !validName(f.Name) {
			return invalid("namespace.config", "a name is 1 to 128 of a-z 0-9 _ . -").With(fmt.Sprintf("%.200q", f.Name), nil)
		}
		if i > 0 && d.Config[i-1].Name >= f.Name {
			return invalid("namespace.config."+f.Name, "names must ascend without repeats")
		}
		if !printable(f.Value, 1, MaxConfigValue) {
			return invalid("namespace.config."+f.Name, "a value is 1 to 4096 printable ASCII characters without space").With(fmt.Sprintf("%.200q", f.Value), nil)
		}
	}
	return nil
}

func (d *Descriptor) validateLayout(opaque bool) error {
	l := d.Layout
	if l.Name != LayoutCanonical && !opaque {
		return invalid("namespace.layout.name", "unknown layout").With(fmt.Sprintf("%.80q", l.Name), LayoutCanonical+", "+LayoutOpaque)
	}
	least, most := 0, 0
	if opaque {
		least, most = 1, MaxToken
	}
	for _, f := range [...]struct{ name, value string }{{"engine", l.Engine}, {"backend", l.Backend}, {"isa", l.ISA}} {
		if !printable(f.value, least, most) {
			return invalid("namespace.layout."+f.name, "printable ASCII without space: 1 to 64 characters in an opaque layout, none in the canonical").With(fmt.Sprintf("%.80q", f.value), nil)
		}
	}
	return nil
}

func (d *Descriptor) validateDtype(opaque bool) error {
	if !printable(d.KVDtype, 1, MaxToken) {
		return invalid("namespace.kv_dtype", "1 to 64 printable ASCII characters").With(fmt.Sprintf("%.80q", d.KVDtype), nil)
	}
	if !printable(d.Quantization, 1, MaxToken) {
		return invalid("namespace.quantization", "1 to 64 printable ASCII characters").With(fmt.Sprintf("%.80q", d.Quantization), nil)
	}
	if !opaque {
		size, known := elementBytes[d.KVDtype]
		if !known {
			return invalid("namespace.kv_dtype", "the canonical layout does not know this type").With(d.KVDtype, nil)
		}
		want := QuantizationNone
		if size == 1 {
			want = QuantizationStatic
		}
		if d.Quantization != want {
			return invalid("namespace.quantization", "does not fit the KV dtype in the canonical layout").With(d.Quantization, want)
		}
	}
	// Other modes, of an opaque layout, may have either.
	scales := d.ScalesDigest != ([32]byte{})
	if d.Quantization == QuantizationStatic && !scales || d.Quantization == QuantizationNone && scales {
		return invalid("namespace.scales_digest", "static scales need a digest, and KV without quantization has none").With(d.Quantization, nil)
	}
	return nil
}

func (d *Descriptor) validateGroups(opaque bool) error {
	if len(d.Groups) < 1 || len(d.Groups) > MaxGroups {
		return invalid("namespace.groups", "wrong number of groups").With(len(d.Groups), "1..16")
	}
	total := 0
	for i := range d.Groups {
		g := &d.Groups[i]
		at := fmt.Sprintf("namespace.groups[%d].", i)
		total += len(g.Layers)
		if len(g.Layers) < 1 || total > MaxLayers {
			return invalid(at+"layers", "every group has layers, all groups together at most 1024").With(total, MaxLayers)
		}
		for j, id := range g.Layers {
			if id >= MaxLayers || j > 0 && g.Layers[j-1] >= id {
				return invalid(at+"layers", "layer ids must ascend and stay below the limit").With(id, MaxLayers)
			}
		}
		if err := d.validateShape(g, at, opaque); err != nil {
			return err
		}
	}
	return nil
}

func (d *Descriptor) validateShape(g *Group, at string, opaque bool) error {
	bad := func(field, want string, v uint32) error {
		return invalid(at+field, "does not fit a group of kind %s in layout %s", g.Kind, d.Layout.Name).With(v, want)
	}
	in := func(v, lo, hi uint32) bool { return v >= lo && v <= hi }
	// The least and most of each field, by kind.
	var dk, dv, window [2]uint32
	heads := [2]uint32{1, MaxKVHeads}
	switch g.Kind {
	case KindFull:
		dk, dv = [2]uint32{1, MaxDim}, [2]uint32{1, MaxDim}
	case KindSliding:
		dk, dv, window = [2]uint32{1, MaxDim}, [2]uint32{1, MaxDim}, [2]uint32{1, MaxWindow}
	case KindLatent:
		dk, window, heads = [2]uint32{1, MaxDim}, [2]uint32{0, MaxWindow}, [2]uint32{1, 1}
	case KindState:
		if !opaque {
			return bad("kind", "full, sliding, latent", uint32(g.Kind))
		}
	default:
		return invalid(at+"kind", "unknown kind").With(uint8(g.Kind), "1..4")
	}
	for _, f := range [...]struct {
		name  string
		v     uint32
		limit [2]uint32
	}{{"kv_heads", g.KVHeads, heads}, {"dk", g.Dk, dk}, {"dv", g.Dv, dv}, {"window", g.Window, window}} {
		if !in(f.v, f.limit[0], f.limit[1]) {
			return bad(f.name, fmt.Sprintf("%d..%d", f.limit[0], f.limit[1]), f.v)
		}
	}
	if g.HeadGroup == 0 || g.KVHeads%g.HeadGroup != 0 {
		return bad("head_group", fmt.Sprintf("a divisor of kv_heads %d", g.KVHeads), g.HeadGroup)
	}
	if !opaque {
		if g.TokensPerEntry != 1 {
			return bad("tokens_per_entry", "1", g.TokensPerEntry)
		}
		if g.BlockTokens != 0 {
			return bad("block_tokens", "0", g.BlockTokens)
		}
		if g.BlockBytes != 0 {
			return bad("block_bytes", "0", g.BlockBytes)
		}
		return nil
	}
	if g.BlockTokens == 0 || d.ChunkTokens%g.BlockTokens != 0 {
		return bad("block_tokens", fmt.Sprintf("a divisor of chunk_tokens %d", d.ChunkTokens), g.BlockTokens)
	}
	if g.TokensPerEntry == 0 || g.BlockTokens%g.TokensPerEntry != 0 {
		return bad("tokens_per_entry", fmt.Sprintf("a divisor of block_tokens %d", g.BlockTokens), g.TokensPerEntry)
	}
	if !in(g.BlockBytes, 1, MaxPartBytes) {
		return bad("block_bytes", "1..67108864", g.BlockBytes)
	}
	return nil
}

func (d *Descriptor) validateSpans() error {
	if len(d.Spans) < 1 || len(d.Spans) > MaxSpans {
		return invalid("namespace.spans", "wrong number of spans").With(len(d.Spans), "1..256")
	}
	for s, first := range d.Spans {
		if s == 0 && first != 0 || s > 0 && first <= d.Spans[s-1] {
			return invalid("namespace.spans", "spans must ascend from layer 0").With(first, nil)
		}
	}
	// layersIn needs all of them to ascend.
	for s, first := range d.Spans {
		layers := 0
		for g := range d.Groups {
			layers += len(d.layersIn(&d.Groups[g], s))
		}
		if layers == 0 {
			return invalid("namespace.spans", "span %d holds no layer of any group", s).With(first, nil)
		}
	}
	return nil
}

// validateParts runs after every factor is bounded: products stay below 2^50.
func (d *Descriptor) validateParts() error {
	var parts, bytes uint64
	for s := range d.Spans {
		for g := range d.Groups {
			grp := &d.Groups[g]
			layers := uint64(len(d.layersIn(grp, s)))
			if layers == 0 {
				continue
			}
			raw := layers * d.layerBytes(grp)
			if raw > MaxPartBytes {
				return invalid(fmt.Sprintf("namespace.groups[%d]", g), "a part in span %d has too many bytes", s).With(raw, MaxPartBytes)
			}
			n := uint64(grp.KVHeads / grp.HeadGroup)
			parts += n
			bytes += n * raw
		}
	}
	if parts > MaxParts {
		return invalid("namespace", "a chunk has too many parts").With(parts, MaxParts)
	}
	if bytes > MaxChunkBytes {
		return invalid("namespace", "a chunk has too many bytes").With(bytes, MaxChunkBytes)
	}
	return nil
}

func validName(s string) bool {
	if len(s) < 1 || len(s) > MaxConfigName {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// printable allows ASCII 0x21..0x7e: no space, control, NUL or anything that
// Unicode normalisation could change.
func printable(s string, least, most int) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
