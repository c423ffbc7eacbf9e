package handover

import (
	"encoding/binary"
	"errors"

	"github.com/larderkv/larder/api/fault"
)

const (
	// What a client asks for with its first bytes.
	magic     = "LDH1"
	laneMagic = "LDL1"
	// TokenSize is the length of a session token in bytes.
	TokenSize = 32
	// requestSize is the length of the only message that a client sends.
	requestSize = len(magic) + TokenSize
	// replyHead is status u8, number of descriptors u16, length of text u32,
	// all little-endian.
	replyHead = 1 + 2 + 4
	maxText   = 1024
	// FrameHead is the length before each message on a lane, u32
	// little-endian; it counts the message alone.
	FrameHead = 4
	// MaxDescriptors is what one message can carry, the pipe included: the
	// kernel's SCM_MAX_FD.
	MaxDescriptors = 253
)

// parseRequest takes a request apart: whether it wants a lane, and its token.
func parseRequest(b []byte) (lane bool, token [TokenSize]byte, err error) {
	if len(b) != requestSize {
		return false, token, fault.New(fault.Invalid, "request", "wrong length").With(len(b), requestSize)
	}
	switch string(b[:len(magic)]) {
	case magic:
	case laneMagic:
		lane = true
	default:
		// The bytes are not quoted: they may be a secret in the wrong place.
		return false, token, fault.New(fault.Invalid, "request.magic", "not a hand-over request; want %q and a session token", magic)
	}
	return lane, [TokenSize]byte(b[len(magic):]), nil
}

// appendReply appends head and text of a reply. Status 0 is success.
func appendReply(b []byte, status uint8, descriptors int, text string) []byte {
	text = text[:min(len(text), maxText)]
	b = append(b, status)
	b = binary.LittleEndian.AppendUint16(b, uint16(descriptors))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

func appendRefusal(b []byte, err error) []byte {
	kind, ok := fault.KindOf(err)
	if !ok {
		kind = fault.Unavailable
	}
	text := err.Error()
	if f, ok := errors.AsType[*fault.Error](err); ok {
		text = f.Text()
	}
	return appendReply(b, uint8(kind), 0, text)
}
