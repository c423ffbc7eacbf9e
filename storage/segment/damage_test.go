package segment_test

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/stretchr/testify/require"
)

// TestEveryBitFlip flips one bit of every byte of the superblock and of a
// segment (of padding and payload, some), sealed and open, one at a time: no flip makes a wrong byte come back,
// few make more than one part go, and none keeps the store from working unless
// both copies of the superblock are hit.
func TestEveryBitFlip(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		t.Run(map[bool]string{true: "sealed", false: "open"}[sealed], func(t *testing.T) {
			fs := simfs.New(64 << 20)
			opt := options(fs)
			opt.SegmentBytes = 128 << 10
			s := open(t, opt)
			recs := []segment.Record{record(1, 5000, 1, scope(1)), record(2, 100, 1, scope(2))}
			ls := appendAll(t, s, recs...)
			recs = append(recs, record(3, 4096, 1, scope(1)))
			ls = append(ls, appendAll(t, s, recs[2])...)
			after := fs
			if !sealed {
				after = fs.Kill()
			}
			require.Equal(t, sealed, s.Close() == nil)
			name := filepath.Join(dir, "0000000000000001.seg")
			payload := func(page int) bool {
				return slices.ContainsFunc(ls, func(l segment.Location) bool {
					return page >= int(l.Page) && page < int(l.Page)+int(l.Footprint()/4096)
				})
			}
			for _, file := range []string{filepath.Join(dir, "STORE"), name} {
				good, ok := after.Bytes(file)
				require.True(t, ok)
				hits, lost := 0, 0
				for at := range good {
					if at%211 != 0 && at > 64 && (zeros(good, at) || payload(at/4096)) {
						continue // padding and payload: some of it
					}
					b := bytes.Clone(good)
					b[at] ^= 1 << (at % 8)
					fs := simfs.New(64 << 20)
					for _, n := range after.Names() {
						c, _ := after.Bytes(n)
						fs.Replace(n, c)
					}
					fs.Replace(file, b)
					h, l := readAll(t, fs, opt, recs, ls)
					hits, lost = hits+h, lost+l
				}
				if hits == 0 || file == name && lost == 0 {
					t.Fatalf("%s: %d hits, %d lost: the test shows nothing", file, hits, lost)
				}
				t.Logf("%s: %d hits, %d lost, 0 wrong", filepath.Base(file), hits, lost)
			}
		})
	}
}

func zeros(b []byte, at int) bool {
	for _, c := range b[max(at-8, 0):min(at+8, len(b))] {
		if c != 0 {
			return false
		}
	}
	return true
}

func readAll(t *testing.T, fs *simfs.FS, opt segment.Options, recs []segment.Record, ls []segment.Location) (hits, lost int) {
	t.Helper()
	_, err := segment.Check(context.Background(), dir, fs, segment.Visitor{})
	require.NoError(t, err)
	opt.FS = fs
	s := open(t, opt)
	defer s.Close()
	for i := range recs {
		if err := get(t, s, ls[i], recs[i]); err == nil {
			hits++
		} else if isLost(err) {
			lost++
		} else {
			t.Fatal(err)
		}
	}
	for _, in := range s.Segments() {
		require.NoError(t, s.Scan(context.Background(), in.Sequence, func(e segment.Entry) error {
			for i := range recs {
				if recs[i].Part.ID == e.Part.ID {
					require.Equal(t, recs[i].Part, e.Part)
					require.Equal(t, ls[i], e.Location)
					require.Equal(t, recs[i].Scope, e.Scope)
					return nil
				}
			}
			t.Fatalf("a part that nobody wrote: %+v", e.Part)
			return nil
		}))
	}
	r := record(9, 300, 1, scope(1))
	require.NoError(t, get(t, s, appendAll(t, s, r)[0], r), "the store does not work any more")
	return hits, lost
}

// Files of another store, or of another segment of the same store, are not
// believed, under whatever name.
func TestForeignSegments(t *testing.T) {
	other := simfs.New(64 << 20)
	opt := options(other)
	opt.ID[5]++
	s := open(t, opt)
	appendAll(t, s, record(1, 5000, 1, scope(1)))
	must(t, s.Close())
	foreign, _ := other.Bytes(dir + "/0000000000000001.seg")

	fs := simfs.New(64 << 20)
	s = open(t, options(fs))
	r := record(2, 5000, 1, scope(1))
	l := appendAll(t, s, r)[0]
	must(t, s.Close())
	own, _ := fs.Bytes(dir + "/0000000000000001.seg")
	fs.Replace(dir+"/0000000000000004.seg", foreign)
	fs.Replace(dir+"/0000000000000005.seg", own)
	fs.Replace(dir+"/0000000000000006.seg", bytes.Repeat([]byte("junk"), 5000))
	fs.Replace(dir+"/0000000000000007.seg", nil)
	fs.Replace(dir+"/notes.txt", []byte("mine"))
	s = open(t, options(fs))
	defer s.Close()
	require.NoError(t, get(t, s, l, r))
	require.Len(t, scanAll(t, s), 1)
	for n := uint64(4); n <= 6; n++ {
		in, ok := s.Segment(n)
		require.True(t, ok)
		require.Equal(t, segment.StateBroken, in.State)
		moved := l
		moved.Segment = n
		require.ErrorIs(t, get(t, s, moved, r), fault.Corrupt)
	}
	_, ok := s.Segment(7)
	require.False(t, ok, "an empty file is what a creation left")
	require.Greater(t, appendAll(t, s, r)[0].Segment, uint64(7))
	freed, err := s.Drop(6)
	require.NoError(t, err)
	require.EqualValues(t, 20480, freed)
	_, ok = fs.Bytes(dir + "/notes.txt")
	require.True(t, ok)
}

// A segment whose trailer is lost is walked and sealed again.
func TestTrailerHeals(t *testing.T) {
	fs := simfs.New(64 << 20)
	s := open(t, options(fs))
	r := record(2, 5000, 1, scope(1))
	l := appendAll(t, s, r)[0]
	must(t, s.Close())
	name := dir + "/0000000000000001.seg"
	good, _ := fs.Bytes(name)
	b := bytes.Clone(good)
	b[len(b)-100] ^= 1
	fs.Replace(name, b)
	s = open(t, options(fs))
	in, _ := s.Segment(1)
	require.True(t, in.Recovered)
	require.Equal(t, segment.StateSealed, in.State)
	require.NoError(t, get(t, s, l, r))
	must(t, s.Close())
	healed, _ := fs.Bytes(name)
	require.True(t, bytes.Equal(good, healed))
	_, err := segment.Dump(context.Background(), dir, fs, 0, func(in segment.Info, e segment.Entry) error {
		require.Equal(t, segment.StateSealed, in.State)
		require.Equal(t, l, e.Location)
		return nil
	})
	require.NoError(t, err)
}
