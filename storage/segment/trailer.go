package segment

import (
	"time"

	"github.com/minio/crc64nvme"
)

// trailer is the last page of a sealed segment. The table before it holds the
// bodies of all group headers, one after another.
type trailer struct {
	head
	sealed time.Time
	// table: its first page and its length in bytes, and the checksum of these.
	tablePage     uint32
	tableBytes    uint32
	tableChecksum uint64
	groups, parts int
	// bytes of the parts in whole pages.
	bytes int64
}

const (
	atSealed     = headEnd
	atTablePage  = headEnd + 8
	atTableBytes = headEnd + 12
	atTableSum   = headEnd + 16
	atGroups     = headEnd + 24
	atParts      = headEnd + 28
	atBytes      = headEnd + 32
	trailerEnd   = headEnd + 40
)

// footerPages is what a footer with a table of so many bytes needs.
func footerPages(tableBytes int64) int64 { return pagesOf(tableBytes) + 1 }

func encodeTrailer(b []byte, store ID, sequence uint64, t trailer) {
	begin(b, magicTrailer, store, sequence)
	putHead(b, t.head)
	le.PutUint64(b[atSealed:], uint64(t.sealed.UnixNano()))
	le.PutUint32(b[atTablePage:], t.tablePage)
	le.PutUint32(b[atTableBytes:], t.tableBytes)
	le.PutUint64(b[atTableSum:], t.tableChecksum)
	le.PutUint32(b[atGroups:], uint32(t.groups))
	le.PutUint32(b[atParts:], uint32(t.parts))
	le.PutUint64(b[atBytes:], uint64(t.bytes))
	finish(b)
}

// decodeTrailer reads the last page of a file of so many bytes.
func decodeTrailer(b []byte, store ID, sequence uint64, size int64) (t trailer, err error) {
	if err := check(b, magicTrailer, "trailer"); err != nil {
		return t, err
	}
	if err := mine(b, store, sequence, "trailer"); err != nil {
		return t, err
	}
	if !zero(b[trailerEnd : len(b)-sumBytes]) {
		return t, corrupt("trailer", "a field that its format does not know")
	}
	h, err := takeHead(b, "trailer")
	if err != nil {
		return t, err
	}
	t = trailer{
		head: h, sealed: time.Unix(0, int64(le.Uint64(b[atSealed:]))),
		tablePage: le.Uint32(b[atTablePage:]), tableBytes: le.Uint32(b[atTableBytes:]), tableChecksum: le.Uint64(b[atTableSum:]),
		groups: int(le.Uint32(b[atGroups:])), parts: int(le.Uint32(b[atParts:])), bytes: int64(le.Uint64(b[atBytes:])),
	}
	if end := (int64(t.tablePage) + footerPages(int64(t.tableBytes))) * PageBytes; t.tablePage < 1 || end != size {
		return t, corrupt("trailer.table", "it does not end the file").With(end, size)
	}
	if t.bytes < 0 || t.bytes > size || t.groups > t.parts || int64(t.groups)*groupFixed > int64(t.tableBytes) {
		return t, corrupt("trailer", "numbers that do not fit the file")
	}
	return t, nil
}

// decodeTable visits the groups of a footer's table.
func decodeTable(b []byte, t trailer, store ID, sequence uint64, visit func(*group) error) error {
	if crc64nvme.Checksum(b) != t.tableChecksum {
		return corrupt("table.checksum", "it does not match its checksum")
	}
	next := walkState{page: 1}
	for rest := b; len(rest) > 0; {
		n := bodyLength(rest)
		if n == 0 {
			return corrupt("table", "a group without an end")
		}
		g, err := decodeBody(rest[:n], store, sequence)
		if err != nil {
			return err
		}
		if err := next.follow(&g, int64(t.tablePage)); err != nil {
			return err
		}
		if err := visit(&g); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if next.page != int64(t.tablePage) || int(next.sequence) != t.groups {
		return corrupt("table", "groups are missing").With(next.sequence, t.groups)
	}
	return nil
}

// walkState is the place where the next group must be.
type walkState struct {
	page     int64
	sequence uint64
}

// follow goes on behind a group that is where it must be, and ends before
// limit.
func (w *walkState) follow(g *group, limit int64) error {
	if int64(g.place.page) != w.page || g.place.sequence != w.sequence {
		return corrupt("group.sequence", "not the next group").With(g.place.sequence, w.sequence)
	}
	if w.page+int64(g.place.pages) > limit {
		return corrupt("group.pages", "it goes beyond the end").With(w.page+int64(g.place.pages), limit)
	}
	w.page += int64(g.place.pages)
	w.sequence++
	return nil
}
