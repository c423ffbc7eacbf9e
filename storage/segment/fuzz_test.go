package segment

import (
	"bytes"
	"testing"
	"time"

	"github.com/larderkv/larder/api/part"
	"github.com/minio/crc64nvme"
)

// Each target gets its input twice: as it is, and with the checksum put right,
// else the fuzzer would never get past it.

var fuzzStore = ID{1, 2, 3}

const fuzzSequence = 7

func summed(b []byte, n int) []byte {
	b = bytes.Clone(b)
	if len(b) >= n && n >= PageBytes {
		finish(b[:n])
	}
	return b
}

// FuzzSuperblock: what decodes encodes to the same, but for a damaged copy.
func FuzzSuperblock(f *testing.F) {
	f.Add(superblock{id: fuzzStore, created: time.Unix(1, 2), reserved: 3}.encode())
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		try := func(b []byte) {
			s, sound, err := decodeSuperblock(b)
			if err != nil {
				return
			}
			if back := s.encode(); sound != bytes.Equal(back, b) {
				t.Fatalf("sound is %v, but the encoding is another: %x", sound, back)
			}
		}
		try(b)
		if len(b) == storeBytes {
			copy(b[PageBytes:], summed(b[:PageBytes], PageBytes))
			try(b)
			copy(b, b[PageBytes:])
			try(b)
		}
	})
}

// fuzzGroups are headers as they are written: of one part, and of some.
func fuzzGroups(tb testing.TB) (headers [][]byte) {
	page, durable := uint32(1), uint64(0)
	for n, count := range []int{1, 3} {
		var size groupSize
		var items []*groupItem
		for i := range count {
			d := &part.Descriptor{Ordinal: uint32(i), Tokens: 256, Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion, Table: make([]uint64, 1+i), StoredLength: uint32(5040 * (i + 1)), RawLength: uint32(5040 * (i + 1))}
			if err := part.Seal(d); err != nil {
				tb.Fatal(err)
			}
			it := &groupItem{scope: Scope{Tenant: [32]byte{byte(i / 2)}}, descriptor: d.AppendTo(nil), length: d.StoredLength, hasPayload: i == 1}
			it.payload = uint64(i) * 77
			if i != 1 {
				it.payload = 0
			}
			items = append(items, it)
			size = size.with(it)
		}
		b := make([]byte, size.headerPages()*PageBytes)
		encodeGroup(b, fuzzStore, fuzzSequence, groupPlace{sequence: uint64(n), durable: durable, page: page, pages: uint32(size.pages()), class: 3}, &size, items)
		headers = append(headers, b)
		page += uint32(size.pages())
	}
	return headers
}

// FuzzGroupHeader: what decodes encodes to the same.
func FuzzGroupHeader(f *testing.F) {
	for _, b := range fuzzGroups(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < PageBytes || len(b)%PageBytes != 0 {
			b = append(b, make([]byte, PageBytes-len(b)%PageBytes)...)
		}
		for _, b := range [][]byte{b, summed(b, len(b))} {
			g, err := decodeGroup(b, fuzzStore, fuzzSequence)
			if err != nil {
				continue
			}
			var size groupSize
			var items []*groupItem
			for i := range g.entries {
				e := g.entry(i)
				it := &groupItem{e.scope, e.descriptor, e.length, e.hasPayload, e.payload}
				items = append(items, it)
				size = size.with(it)
				if l := g.location(fuzzSequence, i); uint64(l.Page) != uint64(l.Group)+uint64(e.page) && uint64(l.Group)+uint64(e.page) < 1<<32 {
					t.Fatalf("%+v", l)
				}
			}
			back := make([]byte, size.headerPages()*PageBytes)
			encodeGroup(back, fuzzStore, fuzzSequence, g.place, &size, items)
			if !bytes.Equal(back, b) {
				t.Fatal("it encodes to something else")
			}
		}
	})
}

// FuzzFooter: a trailer and the table before it, as the end of a file. Groups
// that are visited are in order and in the file. The same page is tried as a
// segment's head.
func FuzzFooter(f *testing.F) {
	var table []byte
	t := trailer{head: head{created: time.Unix(5, 6), capacity: 1 << 20, class: Class{3, "normal"}}, sealed: time.Unix(7, 8), tablePage: 1}
	for _, b := range fuzzGroups(f) {
		g, err := decodeGroup(b, fuzzStore, fuzzSequence)
		if err != nil {
			f.Fatal(err)
		}
		table = append(table, g.body...)
		t.groups++
		t.parts += g.entries
		t.bytes += int64(int(g.place.pages)-g.headerPages) * PageBytes
		t.tablePage += g.place.pages
	}
	t.tableBytes, t.tableChecksum = uint32(len(table)), crc64nvme.Checksum(table)
	page := make([]byte, PageBytes)
	encodeTrailer(page, fuzzStore, fuzzSequence, t)
	size := (int64(t.tablePage) + footerPages(int64(len(table)))) * PageBytes
	if _, err := decodeTrailer(page, fuzzStore, fuzzSequence, size); err != nil {
		f.Fatal(err)
	}
	f.Add(table, page, size)
	first := make([]byte, PageBytes)
	encodeHead(first, fuzzStore, fuzzSequence, t.head)
	if _, err := decodeHead(first, fuzzStore, fuzzSequence); err != nil {
		f.Fatal(err)
	}
	f.Add(table, first, size)
	f.Fuzz(func(t *testing.T, table, page []byte, size int64) {
		page = append(page, make([]byte, PageBytes)...)[:PageBytes]
		for _, page := range [][]byte{page, summed(page, PageBytes)} {
			back := make([]byte, PageBytes)
			if h, err := decodeHead(page, fuzzStore, fuzzSequence); err == nil {
				if encodeHead(back, fuzzStore, fuzzSequence, h); !bytes.Equal(back, page) {
					t.Fatal("the head encodes to something else")
				}
			}
			tr, err := decodeTrailer(page, fuzzStore, fuzzSequence, size)
			if err != nil {
				continue
			}
			clear(back)
			encodeTrailer(back, fuzzStore, fuzzSequence, tr)
			if !bytes.Equal(back, page) {
				t.Fatal("the trailer encodes to something else")
			}
			tr.tableChecksum = crc64nvme.Checksum(table)
			end := uint32(1)
			_ = decodeTable(table, tr, fuzzStore, fuzzSequence, func(g *group) error {
				if g.place.page != end || g.place.page+g.place.pages > tr.tablePage {
					t.Fatalf("group at %d, not %d", g.place.page, end)
				}
				end += g.place.pages
				for i := range g.entries {
					g.entry(i)
				}
				return nil
			})
		}
	})
}

// The bounds of the format hold for what the package itself makes.
func TestGroupLimits(t *testing.T) {
	d := &part.Descriptor{Tokens: 256, Encoding: 2, Table: make([]uint64, part.MaxTable), StoredLength: 1, RawLength: 1}
	if err := part.Seal(d); err != nil {
		t.Fatal(err)
	}
	l := &lane{}
	for range 2 * GroupParts {
		l.queue = append(l.queue, &item{groupItem: groupItem{descriptor: d.AppendTo(nil), length: 1}})
	}
	size, n := l.plan(DefaultSegmentBytes)
	if n >= GroupParts || size.pages()*PageBytes > GroupBytes || n < 100 {
		t.Fatalf("%d parts in %d pages", n, size.pages())
	}
	for _, it := range l.queue {
		it.descriptor = it.descriptor[:part.MinSize]
	}
	if size, n = l.plan(DefaultSegmentBytes); n != GroupParts || size.parts != n {
		t.Fatalf("%d parts", n)
	}
	l.queue[3].length = AloneBytes
	if _, n = l.plan(DefaultSegmentBytes); n != 3 {
		t.Fatalf("%d parts before a large one", n)
	}
	l.queue = l.queue[3:]
	if _, n = l.plan(DefaultSegmentBytes); n != 1 {
		t.Fatalf("%d parts in the group of a large one", n)
	}
}

// The cache forgets what was used least, and stays within its bound.
func TestHeaderCache(t *testing.T) {
	c := headerCache{limit: 300}
	for i := range uint32(4) {
		c.put(headerKey{1, i}, group{body: make([]byte, 100)})
		c.get(headerKey{1, 0})
	}
	c.put(headerKey{1, 9}, group{body: make([]byte, 301)})
	for i, want := range []bool{true, false, true, true} {
		if _, ok := c.get(headerKey{1, uint32(i)}); ok != want {
			t.Fatalf("header %d: %v", i, ok)
		}
	}
	if c.bytes != 300 || len(c.byKey) != 3 {
		t.Fatalf("%d bytes", c.bytes)
	}
}
