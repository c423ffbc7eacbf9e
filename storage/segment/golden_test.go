package segment_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/stretchr/testify/require"
)

var updateGolden = flag.Bool("golden", false, "write the golden files again: only for a new format version")

// goldenStore is a small store, always the same.
func goldenStore(t *testing.T) *simfs.FS {
	fs := simfs.New(64 << 20)
	opt := options(fs)
	opt.SegmentBytes = 128 << 10
	s := open(t, opt)
	unknown := record(4, 1000, 1, scope(2))
	unknown.Part.Encoding, unknown.Part.RawLength = 9, 4000
	require.NoError(t, part.Seal(unknown.Part))
	appendAll(t, s, record(1, 5000, 1, scope(1)), record(2, 8192, 2, scope(2)), record(3, 1, 1, scope(1)), unknown)
	require.NoError(t, s.Sync(context.Background()))
	appendAll(t, s, record(5, 4096, 4, scope(1)))
	require.NoError(t, s.Close())
	return fs
}

// TestGolden: the bytes on the disk are those of testdata/golden, which later
// versions must go on reading, and what they say is testdata/golden/dump.
func TestGolden(t *testing.T) {
	fs := goldenStore(t)
	var names []string
	for _, n := range fs.Names() {
		base := filepath.Base(n)
		if base == "LOCK" {
			continue
		}
		names = append(names, base)
		b, _ := fs.Bytes(n)
		golden := filepath.Join("testdata", "golden", base)
		if *updateGolden {
			require.NoError(t, os.WriteFile(golden, b, 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b), "%s is not as it was: a change of the format needs a new version", base)
	}
	require.Equal(t, []string{"0000000000000001.seg", "STORE"}, names)

	// The golden files themselves, by the system's file system, read only.
	var out strings.Builder
	rep, err := segment.Dump(context.Background(), filepath.Join("testdata", "golden", "."), nil, 0, func(in segment.Info, e segment.Entry) error {
		fmt.Fprintf(&out, "segment %d class %d %q %v %d parts %d bytes\n", in.Sequence, in.Class.ID, in.Class.Name, in.State, in.Parts, in.Bytes)
		fmt.Fprintf(&out, "  %v group %d header %d punched %v scope %x %x\n", e.Location, e.Location.Group, e.Location.HeaderPages, e.Punched, e.Scope.Namespace, e.Scope.Tenant)
		fmt.Fprintf(&out, "  %v encoding %d stored %d raw %d table %x checksum %x\n", e.Part.ID, e.Part.Encoding, e.Part.StoredLength, e.Part.RawLength, e.Part.Table, e.Part.Checksum)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, testID, rep.ID)
	dump := filepath.Join("testdata", "dump")
	if *updateGolden {
		require.NoError(t, os.WriteFile(dump, []byte(out.String()), 0o600))
	}
	want, err := os.ReadFile(dump)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
	rep, err = segment.Check(context.Background(), filepath.Join("testdata", "golden"), nil, segment.Visitor{Problem: func(p segment.Problem) { t.Errorf("%+v", p) }})
	require.NoError(t, err)
	require.Equal(t, segment.Report{ID: testID, Segments: 1, Sealed: 1, Groups: 2, Parts: 5, Bytes: 5000 + 8192 + 1 + 1000 + 4096}, rep)
}
