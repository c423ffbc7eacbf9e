package namespace

import (
	"bytes"
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
)

// Decode parses a canonical encoding and validates it. Anything else is
// Invalid: an unknown format, a missing, repeated, unknown or misplaced tag, a
// wrong length, a value out of its bounds. It allocates in proportion to
// len(b), never by a count or length found in b.
func Decode(b []byte) (*Descriptor, error) {
	if len(b) > MaxEncoded {
		return nil, invalid("namespace", "the encoding is too long").With(len(b), MaxEncoded)
	}
	r := reader{b: b, at: "namespace"}
	d := &Descriptor{}
	if v := r.u32(tagFormat); r.err == nil && v != FormatVersion {
		return nil, invalid("namespace.format", "unknown format version").With(v, FormatVersion)
	}
	copy(d.WeightsID[:], r.fixed(tagWeightsID, 32))
	cfg := reader{b: r.bytes(tagConfig), at: "namespace.config", err: r.err}
	for cfg.err == nil && len(cfg.b) > 0 {
		d.Config = append(d.Config, ConfigField{Name: string(cfg.item()), Value: string(cfg.item())})
	}
	r.join(&cfg)
	d.KVDtype = string(r.bytes(tagKVDtype))
	d.Quantization = string(r.bytes(tagQuantization))
	if s := r.bytes(tagScalesDigest); len(s) > 0 {
		if copy(d.ScalesDigest[:], s); len(s) != 32 || d.ScalesDigest == ([32]byte{}) {
			r.fail("a digest has 32 bytes, not all zero, or none")
		}
	}
	gs := reader{b: r.bytes(tagGroups), at: "namespace.groups", err: r.err}
	for gs.err == nil && len(gs.b) > 0 {
		d.Groups = append(d.Groups, gs.group())
	}
	r.join(&gs)
	d.ChunkTokens = r.u32(tagChunkTokens)
	d.Spans = r.u32s(tagSpans)
	l := reader{b: r.bytes(tagLayout), at: "namespace.layout", err: r.err}
	d.Layout.Name = string(l.bytes(tagLayoutName))
	d.Layout.Engine = string(l.bytes(tagEngine))
	d.Layout.Backend = string(l.bytes(tagBackend))
	d.Layout.ISA = string(l.bytes(tagISA))
	l.end()
	r.join(&l)
	if v := r.fixed(tagWeightsEpoch, 8); v != nil {
		d.WeightsEpoch = binary.LittleEndian.Uint64(v)
	}
	r.end()
	if r.err != nil {
		return nil, r.err
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	// The parser accepts one form only; this holds it to that.
	if !bytes.Equal(d.Encode(), b) {
		return nil, invalid("namespace", "the encoding is not canonical")
	}
	return d, nil
}

func (r *reader) group() Group {
	g := reader{b: r.item(), at: "namespace.groups", err: r.err}
	var out Group
	if v := g.fixed(tagKind, 1); v != nil {
		out.Kind = GroupKind(v[0])
	}
	out.Layers = g.u32s(tagLayers)
	out.KVHeads = g.u32(tagKVHeads)
	out.Dk = g.u32(tagDk)
	out.Dv = g.u32(tagDv)
	out.TokensPerEntry = g.u32(tagTokensPerEntry)
	out.Window = g.u32(tagWindow)
	out.HeadGroup = g.u32(tagHeadGroup)
	out.BlockTokens = g.u32(tagBlockTokens)
	out.BlockBytes = g.u32(tagBlockBytes)
	g.end()
	r.join(&g)
	return out
}

// reader takes fields off the front of b; after the first error it only
// returns zero values.
type reader struct {
	b   []byte
	at  string
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = invalid(r.at, format, args...)
	}
}

func (r *reader) join(inner *reader) {
	if r.err == nil {
		r.err = inner.err
	}
}

func (r *reader) end() {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes follow the last field", len(r.b))
	}
}

// item takes a length and as many bytes.
func (r *reader) item() []byte {
	if r.err != nil {
		return nil
	}
	if len(r.b) < 4 {
		r.fail("the encoding ends inside a length")
		return nil
	}
	n := uint64(binary.LittleEndian.Uint32(r.b))
	if n > uint64(len(r.b)-4) {
		r.fail("a length of %d reaches past the %d bytes that are left", n, len(r.b)-4)
		return nil
	}
	v := r.b[4 : 4+n : 4+n]
	r.b = r.b[4+n:]
	return v
}

func (r *reader) bytes(tag byte) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.b) == 0 {
		r.fail("field %d is missing", tag)
		return nil
	}
	if r.b[0] != tag {
		r.fail("field %d expected, found %d", tag, r.b[0])
		return nil
	}
	r.b = r.b[1:]
	return r.item()
}

func (r *reader) fixed(tag byte, n int) []byte {
	v := r.bytes(tag)
	if r.err != nil {
		return nil
	}
	if len(v) != n {
		r.fail("field %d has %d bytes instead of %d", tag, len(v), n)
		return nil
	}
	return v
}

func (r *reader) u32(tag byte) uint32 {
	if v := r.fixed(tag, 4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u32s(tag byte) []uint32 {
	v := r.bytes(tag)
	if len(v)%4 != 0 {
		r.fail("field %d has %d bytes, not a multiple of 4", tag, len(v))
		return nil
	}
	var out []uint32
	if len(v) > 0 {
		out = make([]uint32, len(v)/4)
	}
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(v[4*i:])
	}
	return out
}

func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, field, format, args...)
}
