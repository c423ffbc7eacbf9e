package segment

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// PageBytes is the unit of the format: headers and parts begin at multiples of
// it, and direct I/O needs it.
const PageBytes = 4096

// Limits of the format.
const (
	// GroupBytes bounds a group of several parts, header included.
	GroupBytes = 4 << 20
	// GroupParts bounds the parts of a group.
	GroupParts = 256
	// AloneBytes: a part of so many bytes or more is a group of its own, so that
	// its header and its bytes are one read.
	AloneBytes = 1 << 20
	// MaxClassName is the longest name of a class in bytes.
	MaxClassName = 64
	// DefaultSegmentBytes is the capacity of a segment.
	DefaultSegmentBytes = 256 << 20
)

// ID names a store: 16 random bytes, made with it.
type ID [16]byte

// String returns the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Scope is a tenant in a namespace.
type Scope = storage.Scope

// Class is a group of segments that are filled, counted and evicted together.
// The number is the caller's; the name is for people and travels with it.
type Class struct {
	ID   uint16
	Name string
}

// Location is where a part lies. It is comparable; the zero value is no place.
type Location struct {
	// Segment is the sequence of the segment, from 1, ascending with age.
	Segment uint64
	// Group and Page are the places of group header and part in the file, and
	// HeaderPages the length of the header, in pages.
	Group, Page uint32
	HeaderPages uint16
	// Entry is the part's index in its group.
	Entry uint16
	// Length in bytes, as stored.
	Length uint32
}

// IsZero reports whether l is no place.
func (l Location) IsZero() bool { return l == Location{} }

// Footprint is what the part itself takes on disk: its length in whole pages.
func (l Location) Footprint() int64 { return pagesOf(int64(l.Length)) * PageBytes }

// String returns "segment/entry@page+length" for logs.
func (l Location) String() string {
	return fmt.Sprintf("%d/%d@%d+%d", l.Segment, l.Entry, l.Page, l.Length)
}

// Claim is what a reader believes to lie at a location. What lies there must be
// exactly this.
type Claim struct {
	Scope Scope
	ID    part.ID
	// Checksum is the descriptor's, which covers the table, which covers the
	// bytes.
	Checksum uint64
}

// Record is a part to write.
type Record struct {
	Scope Scope
	// Part is sealed. Data are its StoredLength bytes; a part that is Known is
	// verified before it is written. Nothing is copied where Data begins on a
	// page, but for a last page that is not full.
	Part *part.Descriptor
	Data []byte
	// Verified: the caller has just verified Data itself, which is not done once
	// more. Hazard: what it did not verify is Corrupt when it is read.
	Verified bool
}

// Target says where records go.
type Target struct {
	Class Class
	// Affinity: records of equal affinity lie together, in the order in which
	// they come. Any number that is equal for one prompt.
	Affinity uint64
}

// Entry is a part as Scan finds it.
type Entry struct {
	Scope    Scope
	Location Location
	// Part belongs to Scan and is valid until the visitor returns.
	Part *part.Descriptor
	// Punched: the bytes are gone, deleted or never written. Only the header
	// remembers the part.
	Punched bool
}

// State of a segment.
type State uint8

const (
	// StateOpen: groups are appended.
	StateOpen State = 1
	// StateSealed: complete, with a footer.
	StateSealed State = 2
	// StateBroken: an error ended it before a footer could be written, or neither
	// header nor footer nor any group could be read. What can be read of it is
	// read; it takes up space until it is dropped.
	StateBroken State = 3
)

var stateNames = [...]string{"", "open", "sealed", "broken"}

// String returns the state as metrics and the command line show it.
func (s State) String() string {
	if s < StateOpen || s > StateBroken {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return stateNames[s]
}

// Info describes a segment.
type Info struct {
	Sequence uint64
	Class    Class
	State    State
	// Created by the clock of the process that made it.
	Created time.Time
	// Recovered: it was not sealed when the store was opened. Parts after the
	// last that the index knows may have been added or lost: scan it.
	Recovered bool
	// Groups and Parts written, with the parts' Bytes in whole pages.
	Groups, Parts int
	Bytes         int64
	// Live bytes in whole pages: Bytes, less what was punched or said by
	// SetLive.
	Live int64
	// Allocated is what the file takes on the file system.
	Allocated int64
}
