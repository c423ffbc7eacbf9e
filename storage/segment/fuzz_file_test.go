package segment_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// FuzzSegment replaces a stretch of a segment's file, sealed or open, and cuts
// it: the store opens, checks and scans it, what is read is right, and it takes
// more.
func FuzzSegment(f *testing.F) {
	name := filepath.Join(dir, "0000000000000001.seg")
	var files [2]*simfs.FS
	var recs []segment.Record
	var ls []segment.Location
	for i := range files {
		fs := simfs.New(16 << 20)
		opt := options(fs)
		opt.SegmentBytes = 128 << 10
		s := open(f, opt)
		recs = []segment.Record{record(1, 5000, 1, scope(1)), record(2, 100, 1, scope(2)), record(3, 4096, 1, scope(1))}
		ls = append(appendAll(f, s, recs[:2]...), appendAll(f, s, recs[2])...)
		if files[i] = fs; i == 1 {
			files[i] = fs.Kill()
			_ = s.Close() // its device is gone
		} else {
			must(f, s.Close())
		}
		whole, ok := files[i].Bytes(name)
		if !ok {
			f.Fatal("no segment")
		}
		for page := 0; page < len(whole); page += segment.PageBytes {
			f.Add(i == 0, uint32(page), whole[page:min(page+128, len(whole))], uint32(len(whole)))
		}
	}
	f.Fuzz(func(t *testing.T, sealed bool, at uint32, b []byte, size uint32) {
		from := files[1]
		if sealed {
			from = files[0]
		}
		whole, _ := from.Bytes(name)
		whole = bytes.Clone(whole[:min(int(size), len(whole))])
		if int(at) < len(whole) {
			copy(whole[at:], b)
		}
		fs := simfs.New(16 << 20)
		for _, n := range from.Names() {
			c, _ := from.Bytes(n)
			fs.Replace(n, c)
		}
		fs.Replace(name, whole)
		if _, err := segment.Check(context.Background(), dir, fs, segment.Visitor{}); err != nil {
			t.Fatal(err)
		}
		opt := options(fs)
		opt.SegmentBytes = 128 << 10
		s := open(t, opt)
		defer func() { must(t, s.Close()) }()
		for i := range recs {
			if err := get(t, s, ls[i], recs[i]); err != nil && !isLost(err) {
				t.Fatal(err)
			}
		}
		for _, in := range s.Segments() {
			if err := s.Scan(context.Background(), in.Sequence, func(segment.Entry) error { return nil }); err != nil && !isLost(err) {
				t.Fatal(err)
			}
		}
		r := record(9, 300, 1, scope(1))
		must(t, get(t, s, appendAll(t, s, r)[0], r))
	})
}
