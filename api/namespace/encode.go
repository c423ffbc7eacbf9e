package namespace

import "encoding/binary"

// FormatVersion is the value of the first field of every encoding.
const FormatVersion = 1

// Tags of the encoding; all are present in every encoding, in this order.
const (
	tagFormat = 1 + iota
	tagWeightsID
	tagConfig
	tagKVDtype
	tagQuantization
	tagScalesDigest
	tagGroups
	tagChunkTokens
	tagSpans
	tagLayout
	tagWeightsEpoch
)

// Tags inside a group.
const (
	tagKind = 1 + iota
	tagLayers
	tagKVHeads
	tagDk
	tagDv
	tagTokensPerEntry
	tagWindow
	tagHeadGroup
	tagBlockTokens
	tagBlockBytes
)

// Tags inside the layout.
const (
	tagLayoutName = 1 + iota
	tagEngine
	tagBackend
	tagISA
)

// Encode returns the canonical encoding. It does not validate.
func (d *Descriptor) Encode() []byte {
	b := make([]byte, 0, 1024)
	b = appendU32(b, tagFormat, FormatVersion)
	b = appendBytes(b, tagWeightsID, d.WeightsID[:])
	var end func([]byte) []byte
	b, end = open(b, tagConfig)
	for _, f := range d.Config {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Name)))
		b = append(b, f.Name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Value)))
		b = append(b, f.Value...)
	}
	b = end(b)
	b = appendBytes(b, tagKVDtype, d.KVDtype)
	b = appendBytes(b, tagQuantization, d.Quantization)
	if d.ScalesDigest == ([32]byte{}) {
		b = appendBytes(b, tagScalesDigest, "")
	} else {
		b = appendBytes(b, tagScalesDigest, d.ScalesDigest[:])
	}
	b, end = open(b, tagGroups)
	for i := range d.Groups {
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		b = d.Groups[i].append(b)
		binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	b = end(b)
	b = appendU32(b, tagChunkTokens, d.ChunkTokens)
	b = appendU32s(b, tagSpans, d.Spans)
	b, end = open(b, tagLayout)
	b = appendBytes(b, tagLayoutName, d.Layout.Name)
	b = appendBytes(b, tagEngine, d.Layout.Engine)
	b = appendBytes(b, tagBackend, d.Layout.Backend)
	b = appendBytes(b, tagISA, d.Layout.ISA)
	b = end(b)
	b = append(b, tagWeightsEpoch, 8, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(b, d.WeightsEpoch)
}

func (g *Group) append(b []byte) []byte {
	b = append(b, tagKind, 1, 0, 0, 0, byte(g.Kind))
	b = appendU32s(b, tagLayers, g.Layers)
	b = appendU32(b, tagKVHeads, g.KVHeads)
	b = appendU32(b, tagDk, g.Dk)
	b = appendU32(b, tagDv, g.Dv)
	b = appendU32(b, tagTokensPerEntry, g.TokensPerEntry)
	b = appendU32(b, tagWindow, g.Window)
	b = appendU32(b, tagHeadGroup, g.HeadGroup)
	b = appendU32(b, tagBlockTokens, g.BlockTokens)
	return appendU32(b, tagBlockBytes, g.BlockBytes)
}

// open begins a field whose length is known at its end.
func open(b []byte, tag byte) ([]byte, func([]byte) []byte) {
	b = append(b, tag, 0, 0, 0, 0)
	at := len(b)
	return b, func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
		return b
	}
}

func appendBytes[T string | []byte](b []byte, tag byte, v T) []byte {
	b = append(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

func appendU32(b []byte, tag byte, v uint32) []byte {
	b = append(b, tag, 4, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, v)
}

func appendU32s(b []byte, tag byte, v []uint32) []byte {
	b = append(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(4*len(v)))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}
