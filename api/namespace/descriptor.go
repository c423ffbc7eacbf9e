package namespace

import (
	"crypto/sha256"
	"strconv"
)

// Layout names.
const (
	// LayoutCanonical: layer, head, token, then K and V packed.
	LayoutCanonical = "canonical/1"
	// LayoutOpaque: whole engine blocks, bound to engine, backend and ISA.
	LayoutOpaque = "opaque/1"
)

// Quantization modes that the canonical layout knows. An opaque layout may
// name others.
const (
	QuantizationNone   = "none"
	QuantizationStatic = "static"
)

// Fingerprint is the SHA-256 of a descriptor's encoding.
type Fingerprint [sha256.Size]byte

// Descriptor is a namespace. The zero value is not valid; see Validate for the
// limits on each field.
type Descriptor struct {
	// WeightsID names the weights by content or by the operator's word.
	WeightsID [32]byte
	// Config holds the model's and the engine's settings that change KV,
	// ascending by name.
	Config []ConfigField
	// KVDtype is the element type of the stored KV by its torch name.
	KVDtype string
	// Quantization says how elements relate to values.
	Quantization string
	// ScalesDigest is the digest of static KV scales; zero = there are none.
	ScalesDigest [32]byte
	// Groups in the engine's order; the index is a part id's group.
	Groups []Group
	// ChunkTokens is the number of tokens in a chunk.
	ChunkTokens uint32
	// Spans holds the first layer id of each layer span, ascending from 0; the
	// index is a part id's span. A span ends where the next begins.
	Spans []uint32
	// Layout says how a part's bytes are arranged.
	Layout Layout
	// WeightsEpoch goes up when weights change without a new WeightsID.
	WeightsEpoch uint64
}

// ConfigField is one setting in the canonical text of api/NAMESPACE.md.
type ConfigField struct {
	Name  string
	Value string
}

// GroupKind says what an entry of KV in a group is and what a hit needs.
type GroupKind uint8

const (
	// KindFull: attention over everything before.
	KindFull GroupKind = 1
	// KindSliding: attention over the last Window tokens.
	KindSliding GroupKind = 2
	// KindLatent: one compressed vector instead of K and V.
	KindLatent GroupKind = 3
	// KindState: a recurrent state at the end of a block.
	KindState GroupKind = 4
)

var kindNames = [...]string{"", "full", "sliding", "latent", "state"}

// String returns "full", "sliding", "latent" or "state".
func (k GroupKind) String() string {
	if k < KindFull || k > KindState {
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
	return kindNames[k]
}

// Group is a set of layers that share one kind and shape of KV.
type Group struct {
	Kind GroupKind
	// Layers holds model layer ids, ascending. A layer with several caches
	// appears in several groups.
	Layers []uint32
	// KVHeads over all ranks; 1 for latent; for state the number of shards.
	KVHeads uint32
	// Dk and Dv are elements of K and V for one head and token. Latent: Dk
	// elements and Dv = 0. State: both 0.
	Dk, Dv uint32
	// TokensPerEntry is 1 unless an entry stands for several tokens.
	TokensPerEntry uint32
	// Window in tokens; 0 = none.
	Window uint32
	// HeadGroup is the number of KV heads in one part; it divides KVHeads.
	HeadGroup uint32
	// BlockTokens and BlockBytes are 0 in the canonical layout. Opaque: the
	// tokens of one engine block, and its bytes for one layer and one head
	// group, padding included.
	BlockTokens, BlockBytes uint32
}

// Layout says how a part's bytes are arranged.
type Layout struct {
	// Name is LayoutCanonical or LayoutOpaque.
	Name string
	// Engine, Backend and ISA bind an opaque layout; empty in the canonical.
	Engine, Backend, ISA string
}

// Fingerprint returns the SHA-256 of d's encoding. It is meaningful for a
// valid descriptor only.
func (d *Descriptor) Fingerprint() Fingerprint {
	return sha256.Sum256(d.Encode())
}
