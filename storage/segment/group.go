package segment

import (
	"bytes"

	"github.com/larderkv/larder/api/part"
)

// A group header: fixed fields, entries, scopes, descriptors, zeros up to whole
// pages less the checksum. What comes before the zeros is its body.
const (
	atGroup      = 40
	atDurable    = 48
	atGroupPage  = 56
	atGroupPages = 60
	atGroupClass = 64
	atEntries    = 66
	atScopes     = 68
	atBody       = 72
	groupFixed   = 96
	entryBytes   = 32
	scopeBytes   = 64
	flagPayload  = 1
	// maxHeaderBytes bounds a header: that of a group, or of one part.
	maxHeaderBytes = GroupBytes
)

// groupPlace is what a header says about itself.
type groupPlace struct {
	sequence uint64
	// durable groups of the segment were synced when the header was made.
	durable uint64
	// page of the header in the file, and the group's pages with it.
	page, pages uint32
	class       uint16
}

// groupItem is a part on its way into a header.
type groupItem struct {
	scope      Scope
	descriptor []byte // its encoding
	length     uint32
	// payload is the checksum of the bytes where the descriptor's table does not
	// serve this version.
	hasPayload bool
	payload    uint64
}

// groupSize measures a group while it grows.
type groupSize struct {
	scopes             []Scope
	parts, descriptors int
	dataPages          int64
}

// with returns the size with one more part.
func (g groupSize) with(it *groupItem) groupSize {
	if g.scopeIndex(it.scope) < 0 {
		g.scopes = append(g.scopes[:len(g.scopes):len(g.scopes)], it.scope)
	}
	g.parts++
	g.descriptors += len(it.descriptor)
	g.dataPages += pagesOf(int64(it.length))
	return g
}

func (g *groupSize) scopeIndex(s Scope) int {
	for i := range g.scopes {
		if g.scopes[i] == s {
			return i
		}
	}
	return -1
}

func (g *groupSize) bodyBytes() int {
	return groupFixed + entryBytes*g.parts + scopeBytes*len(g.scopes) + g.descriptors
}

func (g *groupSize) headerPages() int64 { return pagesOf(int64(g.bodyBytes()) + sumBytes) }
func (g *groupSize) pages() int64       { return g.headerPages() + g.dataPages }

// encodeGroup writes the header, of exactly g.headerPages(), and returns its
// body.
func encodeGroup(b []byte, store ID, segment uint64, p groupPlace, g *groupSize, items []*groupItem) []byte {
	begin(b, magicGroup, store, segment)
	le.PutUint64(b[atGroup:], p.sequence)
	le.PutUint64(b[atDurable:], p.durable)
	le.PutUint32(b[atGroupPage:], p.page)
	le.PutUint32(b[atGroupPages:], uint32(g.pages()))
	le.PutUint16(b[atGroupClass:], p.class)
	le.PutUint16(b[atEntries:], uint16(g.parts))
	le.PutUint16(b[atScopes:], uint16(len(g.scopes)))
	le.PutUint32(b[atBody:], uint32(g.bodyBytes()))
	at := groupFixed + entryBytes*g.parts
	for i := range g.scopes {
		copy(b[at:], g.scopes[i].Namespace[:])
		copy(b[at+32:], g.scopes[i].Tenant[:])
		at += scopeBytes
	}
	page := g.headerPages()
	for i, it := range items {
		e := b[groupFixed+entryBytes*i:]
		le.PutUint32(e, uint32(page))
		le.PutUint32(e[4:], it.length)
		le.PutUint32(e[8:], uint32(at))
		le.PutUint32(e[12:], uint32(len(it.descriptor)))
		le.PutUint16(e[16:], uint16(g.scopeIndex(it.scope)))
		if it.hasPayload {
			le.PutUint16(e[18:], flagPayload)
			le.PutUint64(e[24:], it.payload)
		}
		at += copy(b[at:], it.descriptor)
		page += pagesOf(int64(it.length))
	}
	finish(b)
	return b[:at]
}

// group is a body that was checked.
type group struct {
	body    []byte
	place   groupPlace
	entries int
	// headerPages and the first of the scopes.
	headerPages, scopesAt int
}

// groupEntry is one line of the table.
type groupEntry struct {
	page, length uint32 // page relative to the header
	scope        Scope
	descriptor   []byte
	hasPayload   bool
	payload      uint64
}

// decodeGroup checks a header of exactly len(b) bytes.
func decodeGroup(b []byte, store ID, segment uint64) (g group, err error) {
	if err := check(b, magicGroup, "group"); err != nil {
		return g, err
	}
	body := int64(le.Uint32(b[atBody:]))
	if body > int64(len(b))-sumBytes || pagesOf(body+sumBytes)*PageBytes != int64(len(b)) || !zero(b[body:len(b)-sumBytes]) {
		return g, corrupt("group.body", "wrong length").With(body, len(b)-sumBytes)
	}
	return decodeBody(b[:body], store, segment)
}

// bodyLength reads how long the body at the beginning of b is; 0 if none is.
func bodyLength(b []byte) int {
	if len(b) < groupFixed || string(b[:8]) != magicGroup {
		return 0
	}
	n := int(le.Uint32(b[atBody:]))
	if n < groupFixed || n > len(b) {
		return 0
	}
	return n
}

// decodeBody checks everything of a body that the checksum before it does not:
// that it is this segment's, and that it is the only encoding of what it says.
func decodeBody(b []byte, store ID, segment uint64) (g group, err error) {
	if len(b) < groupFixed || int64(len(b)) != int64(le.Uint32(b[atBody:])) {
		return g, corrupt("group.body", "wrong length").With(len(b), groupFixed)
	}
	if err := mine(b, store, segment, "group"); err != nil {
		return g, err
	}
	n, m := int(le.Uint16(b[atEntries:])), int(le.Uint16(b[atScopes:]))
	g = group{
		body: b, entries: n, headerPages: int(pagesOf(int64(len(b)) + sumBytes)), scopesAt: groupFixed + entryBytes*n,
		place: groupPlace{
			sequence: le.Uint64(b[atGroup:]), durable: le.Uint64(b[atDurable:]),
			page: le.Uint32(b[atGroupPage:]), pages: le.Uint32(b[atGroupPages:]), class: le.Uint16(b[atGroupClass:]),
		},
	}
	at := g.scopesAt + scopeBytes*m
	switch {
	case n < 1 || n > GroupParts || m < 1 || m > n || at > len(b):
		return g, corrupt("group.entries", "out of range").With(n, GroupParts)
	case g.place.durable > g.place.sequence:
		return g, corrupt("group.durable", "more groups than there are").With(g.place.durable, g.place.sequence)
	case string(b[:8]) != magicGroup || le.Uint32(b[atFormat:]) != FormatVersion || le.Uint32(b[atLength:]) != uint32(g.headerPages*PageBytes):
		return g, corrupt("group", "magic, format or length are wrong")
	case le.Uint16(b[70:]) != 0 || !zero(b[76:groupFixed]):
		return g, corrupt("group", "a field that its format does not know")
	}
	return g, g.checkTable(m, at)
}

func (g *group) checkTable(scopes, at int) error {
	page, used := int64(g.headerPages), 0
	for i := range g.entries {
		e := g.body[groupFixed+entryBytes*i:][:entryBytes]
		length, descriptor := le.Uint32(e[4:]), int(le.Uint32(e[12:]))
		scope, flags := int(le.Uint16(e[16:])), le.Uint16(e[18:])
		switch {
		case int64(le.Uint32(e)) != page || int64(le.Uint32(e[8:])) != int64(at):
			return corrupt("group.entry", "entry %d is not where it must be", i)
		case length < 1 || length > part.MaxLength:
			return corrupt("group.entry", "the length of entry %d is out of range", i).With(length, part.MaxLength)
		case descriptor < part.MinSize || descriptor > part.MaxSize || descriptor > len(g.body)-at:
			return corrupt("group.entry", "the descriptor of entry %d is out of range", i).With(descriptor, len(g.body)-at)
		case le.Uint32(g.body[at+80:]) != length:
			return corrupt("group.entry", "entry %d and its descriptor differ in length", i).With(length, le.Uint32(g.body[at+80:]))
		case scope > used || scope >= scopes:
			return corrupt("group.entry", "entry %d has no scope", i).With(scope, scopes)
		case flags > flagPayload || flags == 0 && le.Uint64(e[24:]) != 0 || le.Uint32(e[20:]) != 0:
			return corrupt("group.entry", "entry %d has a field that its format does not know", i)
		}
		if scope == used {
			used++
		}
		at += descriptor
		page += pagesOf(int64(length))
	}
	switch {
	case at != len(g.body):
		return corrupt("group.body", "it is longer than what is in it").With(len(g.body), at)
	case page != int64(g.place.pages):
		return corrupt("group.pages", "they are not what the entries need").With(g.place.pages, page)
	case used != scopes:
		return corrupt("group.scopes", "a scope that no entry uses").With(scopes, used)
	case g.entries > 1 && page*PageBytes > GroupBytes:
		return corrupt("group.pages", "too long for a group of several parts").With(page*PageBytes, GroupBytes)
	}
	for i := range scopes {
		for j := range i {
			if bytes.Equal(g.scopeAt(i), g.scopeAt(j)) {
				return corrupt("group.scopes", "a scope that is there twice").With(i, j)
			}
		}
	}
	return nil
}

func (g *group) scopeAt(i int) []byte { return g.body[g.scopesAt+scopeBytes*i:][:scopeBytes] }

// entry returns a line of the table; i is below entries.
func (g *group) entry(i int) groupEntry {
	e := g.body[groupFixed+entryBytes*i:][:entryBytes]
	s := g.scopeAt(int(le.Uint16(e[16:])))
	return groupEntry{
		page: le.Uint32(e), length: le.Uint32(e[4:]),
		scope:      Scope{Namespace: [32]byte(s[:32]), Tenant: [32]byte(s[32:])},
		descriptor: g.body[le.Uint32(e[8:]):][:le.Uint32(e[12:])],
		hasPayload: le.Uint16(e[18:]) == flagPayload, payload: le.Uint64(e[24:]),
	}
}

// location of an entry.
func (g *group) location(segment uint64, i int) Location {
	e := g.entry(i)
	return Location{
		Segment: segment, Group: g.place.page, Page: g.place.page + e.page,
		HeaderPages: uint16(g.headerPages), Entry: uint16(i), Length: e.length,
	}
}
