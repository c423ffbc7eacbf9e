package part

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
)

// Encodings. A number that is not here is carried, never interpreted: for a
// load it is a miss.
const (
	// EncodingRaw: the bytes of the namespace's layout as they are.
	EncodingRaw = 1
	// RawVersion is the only version of EncodingRaw.
	RawVersion = 1
	// EncodingCodec: one object of codec/FORMAT.md, shorter than the raw bytes.
	EncodingCodec = 2
	// CodecVersion is the only version of EncodingCodec.
	CodecVersion = 1
	// EncodingBundle: a slice of one object of codec/FORMAT.md that has the bytes
	// of all head groups.
	EncodingBundle = 3
	// BundleVersion is the only version of EncodingBundle.
	BundleVersion = 1
)

// Entries in the table of a part of EncodingCodec, or EncodingBundle.
const (
	// CodecHeader is the checksum of the object's header, as the header says it.
	CodecHeader = iota
	// CodecBytes is the checksum of all stored bytes.
	CodecBytes
	// CodecOrigin, where it is there, is the checksum of the descriptor that the
	// part has when it is decoded: nothing was lost.
	CodecOrigin
	// MaxCodecTable bounds the entries.
	MaxCodecTable
)

// QualityExact is the quality of bytes without any lossy step in their
// history; above it stands 1 + the worst level.
const QualityExact = 0

// Limits on a descriptor.
const (
	MaxTokens = 1024
	// MaxLength bounds StoredLength and RawLength.
	MaxLength = 64 << 20
	// MaxTable bounds the checksum table's entries.
	MaxTable = 4096
	// MaxRawTable bounds them for raw parts, which have one for each layer.
	MaxRawTable = 1024
)

// Descriptor says what a part's bytes are.
type Descriptor struct {
	ID ID
	// Parent is the key of the chunk before, or the root.
	Parent keys.Key
	// Ordinal is the chunk's index in its prompt, from 0.
	Ordinal uint32
	// Tokens in the chunk, 1..1024; chunk_tokens in version 1.
	Tokens uint16
	// Encoding is at least 1; EncodingVersion belongs to it.
	Encoding, EncodingVersion uint8
	// Quality is QualityExact, or 1 + the worst level in the history of these
	// bytes.
	Quality uint8
	// Basis names what a coded part is decoded with; 0 = nothing.
	Basis uint64
	// StoredLength is the number of bytes that this describes; RawLength what
	// they are without encoding. 1..MaxLength.
	StoredLength, RawLength uint32
	// Table holds CRC-64/NVMe values of stored bytes: raw, one for each layer, in
	// order; coded, see CodecHeader.
	Table []uint64
	// Checksum covers everything above; Seal sets it.
	Checksum uint64
}

// Known reports whether this version can verify the part's stored bytes. What
// is not known is a miss.
func (d *Descriptor) Known() bool { return d.Raw() || d.Coded() || d.Bundled() }

// Raw reports whether the stored bytes are the part's own.
func (d *Descriptor) Raw() bool {
	return d.Encoding == EncodingRaw && d.EncodingVersion == RawVersion
}

// Coded reports whether the stored bytes are an object of the codec, which must
// be decoded first.
func (d *Descriptor) Coded() bool {
	return d.Encoding == EncodingCodec && d.EncodingVersion == CodecVersion
}

// Bundled reports whether the stored bytes are a slice of an object of the codec:
// those of all head groups of the chunk, group and span make it whole.
func (d *Descriptor) Bundled() bool {
	return d.Encoding == EncodingBundle && d.EncodingVersion == BundleVersion
}

// Acceptable reports whether the quality is exact or no worse than worst, in
// the terms of larder.v1.Match.worst_quality.
func (d *Descriptor) Acceptable(worst uint8) bool { return d.Quality <= worst }

// validate checks everything but Checksum.
func (d *Descriptor) validate() error {
	switch {
	case d.Encoding == 0:
		return invalid("encoding", "an encoding is 1 or more").With(0, nil)
	case d.Tokens < 1 || d.Tokens > MaxTokens:
		return invalid("tokens", "out of range").With(d.Tokens, "1..1024")
	case d.StoredLength < 1 || d.StoredLength > MaxLength:
		return invalid("stored_length", "out of range").With(d.StoredLength, "1..67108864")
	case d.RawLength < 1 || d.RawLength > MaxLength:
		return invalid("raw_length", "out of range").With(d.RawLength, "1..67108864")
	case len(d.Table) < 1 || len(d.Table) > MaxTable:
		return invalid("table", "wrong number of checksums").With(len(d.Table), "1..4096")
	}
	switch {
	case d.Raw():
		return d.validateRaw()
	case (d.Coded() || d.Bundled()) && d.StoredLength >= d.RawLength:
		return invalid("stored_length", "a part that does not shrink is stored raw").With(d.StoredLength, d.RawLength)
	case d.Coded() && (len(d.Table) <= CodecBytes || len(d.Table) > MaxCodecTable):
		return invalid("table", "wrong number of checksums").With(len(d.Table), "2..3")
	case d.Bundled() && len(d.Table) != CodecBytes+1:
		return invalid("table", "wrong number of checksums").With(len(d.Table), 2)
	}
	return nil
}

func (d *Descriptor) validateRaw() error {
	switch {
	case d.StoredLength != d.RawLength:
		return invalid("stored_length", "a raw part is stored as it is").With(d.StoredLength, d.RawLength)
	case d.Basis != 0:
		return invalid("basis", "a raw part has no basis").With(d.Basis, 0)
	case len(d.Table) > MaxRawTable:
		return invalid("table", "too many layers").With(len(d.Table), MaxRawTable)
	case int(d.RawLength)%len(d.Table) != 0:
		return invalid("table", "the layers are not equally long").With(len(d.Table), d.RawLength)
	}
	return nil
}

func invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "part."+field, format, args...)
}
