package rans

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
)

const (
	// Lanes is the number of interleaved coders, and so of the symbols that one
	// step codes. Symbol i of a body belongs to lane i mod Lanes.
	Lanes = 64
	// Slots is the sum of a table's frequencies.
	Slots = 256
	// StateSize is the size of an encoded State in bytes.
	StateSize = 2 * Lanes

	// low is the smallest value that a lane has between two symbols, and what an
	// encoder starts from. It equals Slots, so that a renormalisation moves
	// exactly one byte and never two.
	low = 1 << 8
)

// State is where the lanes stand between two bodies: values from 256 to 65535.
//
// It is not bound to one body. An encoder may go on with it from one body to
// the next; a decoder then walks through the bodies in the opposite order, and
// the states are stored once, for all of them (FORMAT.md, chains).
type State [Lanes]uint16

// Reset puts every lane where an encoder starts.
func (s *State) Reset() {
	for l := range s {
		s[l] = low
	}
}

// AtStart reports whether every lane is where an encoder started: after the
// last body of a chain was decoded this holds, or the chain is damaged.
func (s *State) AtStart() bool {
	var off uint16
	for _, x := range s {
		off |= x ^ low
	}
	return off == 0
}

// AppendTo appends the StateSize bytes of s to dst.
func (s *State) AppendTo(dst []byte) []byte {
	for _, x := range s {
		dst = binary.LittleEndian.AppendUint16(dst, x)
	}
	return dst
}

// Read sets s from the first StateSize bytes of src. It answers corrupt when
// src is shorter or a lane is below 256, and then leaves s as it was.
func (s *State) Read(src []byte) error {
	if len(src) < StateSize {
		return fault.New(fault.Corrupt, "rans.state", "too short").With(len(src), StateSize)
	}
	var n State
	for l := range n {
		n[l] = binary.LittleEndian.Uint16(src[2*l:])
	}
	if err := n.valid(fault.Corrupt); err != nil {
		return err
	}
	*s = n
	return nil
}

// valid: kernels rely on lanes of at least low; only then do they stay so.
func (s *State) valid(kind fault.Kind) error {
	for _, x := range s {
		if x < low {
			return fault.New(kind, "rans.state", "lane below its range").With(x, low)
		}
	}
	return nil
}
