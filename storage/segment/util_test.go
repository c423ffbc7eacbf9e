package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"golang.org/x/sys/unix"
)

// failer is what *testing.T, *testing.B, *testing.F and *rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

const dir = "/store"

var testID = segment.ID{0: 'i', 15: 'd'}

func scope(n byte) segment.Scope {
	return segment.Scope{Namespace: [32]byte{0: 'n', 31: n}, Tenant: [32]byte{0: 't', 31: n}}
}

// record makes a part whose bytes follow from its number.
func record(n uint64, length, layers int, sc segment.Scope) segment.Record {
	data := pages(length)
	pattern(n, data)
	d := &part.Descriptor{
		ID: part.ID{Group: 1}, Ordinal: uint32(n), Tokens: 256,
		Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion,
		StoredLength: uint32(length), RawLength: uint32(length),
	}
	copy(d.ID.Chunk[:], "part")
	binary.BigEndian.PutUint64(d.ID.Chunk[24:], n)
	d.Parent = keys.Key{1}
	var err error
	if d.Table, err = part.Checksums(nil, data, layers); err == nil {
		err = part.Seal(d)
	}
	if err != nil {
		panic(err)
	}
	return segment.Record{Scope: sc, Part: d, Data: data}
}

func pattern(n uint64, data []byte) {
	src := rand.NewPCG(n, 1)
	for i := 0; i < len(data); i += 8 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], src.Uint64())
		copy(data[i:], w[:])
	}
}

func claimOf(r segment.Record) segment.Claim {
	return segment.Claim{Scope: r.Scope, ID: r.Part.ID, Checksum: r.Part.Checksum}
}

// pages returns n bytes that begin on a page, with room for whole pages behind.
func pages(n int) []byte {
	b := make([]byte, (n+4095)&^4095+4096)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 4095
	return b[skip:][:n]
}

// room is a destination for a location, of whole pages.
func room(l segment.Location) []byte { return pages(int(l.Footprint())) }

// get reads a part and says whether it came; wrong bytes end the test.
func get(t failer, s *segment.Store, l segment.Location, r segment.Record) error {
	t.Helper()
	var d part.Descriptor
	dst := room(l)
	n, err := s.Read(context.Background(), l, claimOf(r), &d, dst)
	if err != nil {
		if _, ok := fault.KindOf(err); !ok {
			t.Fatalf("an error without a kind: %v", err)
		}
		return err
	}
	if !bytes.Equal(dst[:n], r.Data) || d.ID != r.Part.ID || d.Checksum != r.Part.Checksum {
		t.Fatalf("WRONG BYTES for %v at %v", r.Part.ID, l)
	}
	return nil
}

// options for small stores without a clock of their own.
func options(fs *simfs.FS) segment.Options {
	return segment.Options{
		ID: testID, Budget: 64 << 20, Reserve: 1, SegmentBytes: 4 << 20, Lanes: 1, SyncInterval: time.Hour,
		FS: fs, Now: func() time.Time { return time.Unix(1700000000, 0) },
	}
}

func open(t failer, opt segment.Options) *segment.Store {
	t.Helper()
	s, err := segment.Open(context.Background(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func appendAll(t failer, s *segment.Store, recs ...segment.Record) []segment.Location {
	t.Helper()
	ls, err := s.Append(context.Background(), segment.Target{Class: segment.Class{ID: 1, Name: "normal"}}, recs)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isLost says whether the error is one that damage or loss may cause.
func isLost(err error) bool {
	return errors.Is(err, fault.Miss) || errors.Is(err, fault.Corrupt)
}

var errIO = error(unix.EIO)

// failing lets all operations of the kinds fail.
func failing(kinds ...string) func(simfs.Op) error {
	return func(op simfs.Op) error {
		if slices.Contains(kinds, op.Kind) {
			return errIO
		}
		return nil
	}
}
