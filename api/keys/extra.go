package keys

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/larderkv/larder/api/fault"
)

// ExtraKind says what stands in place of tokens.
type ExtraKind uint8

const (
	// Multimodal: an image, sound or video whose placeholder tokens say
	// nothing about its content.
	Multimodal ExtraKind = tagMultimodal
	// Embedding: prompt embeddings given in place of tokens.
	Embedding ExtraKind = tagEmbedding
)

const (
	// MaxExtras bounds the extras of one prompt.
	MaxExtras = 4096
	// MaxContent bounds the content hash in bytes.
	MaxContent = 256
)

// Extra is content that tokens [Start, Start+Count) of the prompt stand for.
// It enters the key of every chunk that it overlaps.
type Extra struct {
	Kind ExtraKind
	// Start is counted from the beginning of the prompt, in tokens.
	Start, Count uint32
	// Content is the content's hash, 1 to 256 bytes.
	Content []byte
}

// end is exclusive and may be 2^32.
func (e *Extra) end() uint64 { return uint64(e.Start) + uint64(e.Count) }

func compareExtras(a, b Extra) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.Count, b.Count), bytes.Compare(a.Content, b.Content))
}

// sortExtras checks extras and returns them in the order in which chunks hash
// them, so that the order of the caller's list does not matter.
func sortExtras(extras []Extra) ([]Extra, error) {
	if len(extras) == 0 {
		return nil, nil
	}
	if len(extras) > MaxExtras {
		return nil, fault.New(fault.Invalid, "extras", "too many").With(len(extras), MaxExtras)
	}
	s := slices.Clone(extras)
	slices.SortFunc(s, compareExtras)
	for i := range s {
		e := &s[i]
		switch {
		case e.Kind != Multimodal && e.Kind != Embedding:
			return nil, fault.New(fault.Invalid, "extras.kind", "unknown kind").With(uint8(e.Kind), "48, 49")
		case e.Count == 0 || e.end() > 1<<32:
			return nil, fault.New(fault.Invalid, "extras.count", "an extra stands for 1 token or more below position 2^32").With(e.end(), uint64(1<<32))
		case len(e.Content) < 1 || len(e.Content) > MaxContent:
			return nil, fault.New(fault.Invalid, "extras.content", "wrong length").With(len(e.Content), "1..256")
		case i > 0 && compareExtras(s[i-1], *e) == 0:
			return nil, fault.New(fault.Invalid, "extras", "the same extra twice").With(e.Start, nil)
		}
	}
	return s, nil
}

// appendTo appends the extra's field to a chunk's message.
func (e *Extra) appendTo(b []byte) []byte {
	b = append(b, byte(e.Kind))
	b = binary.LittleEndian.AppendUint32(b, uint32(8+len(e.Content)))
	b = binary.LittleEndian.AppendUint32(b, e.Start)
	b = binary.LittleEndian.AppendUint32(b, e.Count)
	return append(b, e.Content...)
}
