package pebbled

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// one makes the descriptor and bytes of part i of a chunk.
func one(t *testing.T, n byte, i int) (*part.Descriptor, []byte) {
	t.Helper()
	p := layout[i]
	b := make([]byte, p.RawLength)
	for j := range b {
		b[j] = byte(j) ^ n ^ byte(i)
	}
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keys.Key{n}}, Ordinal: uint32(n)}, p, b)
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

func putChunk(tier storage.Tier, t *testing.T, n byte) error {
	t.Helper()
	for i := range layout {
		d, b := one(t, n, i)
		if _, err := tier.Put(context.Background(), d, b); err != nil {
			return err
		}
	}
	return nil
}

// here counts the parts of the chunk that are there, all of them right.
func here(tier storage.Tier, t *testing.T, n byte) (parts int) {
	t.Helper()
	return tiertest.Count(t, tier, len(layout), func(i int) (*part.Descriptor, []byte) { return one(t, n, i) })
}

// Power is lost after each of many states: what was published is there, what
// was deleted is not, and half a chunk is nowhere.
func TestPowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s, err := Open("/db", Options{Budget: 100 * chunkBytes, FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	tier := s.Tier(scopeOf(0), layout)
	r := rand.New(rand.NewPCG(1, 2))
	for n := byte(1); n <= 12; n++ {
		if err := putChunk(tier, t, n); err != nil {
			t.Fatal(err)
		}
		if n%3 == 0 {
			if _, err := tier.Delete(context.Background(), keys.Key{n - 1}); err != nil {
				t.Fatal(err)
			}
		}
		after, err := Open("/db", Options{Budget: 100 * chunkBytes, FS: fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: r})})
		if err != nil {
			t.Fatal(err)
		}
		for m := byte(1); m <= n; m++ {
			want := len(layout)
			if m%3 == 2 && m < n {
				want = 0 // deleted
			}
			if got := here(after.Tier(scopeOf(0), layout), t, m); got != want {
				t.Errorf("power lost after chunk %d: %d parts of chunk %d, want %d", n, got, m, want)
			}
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Writes fail at every place in turn: the call says so, nothing panics, and a
// later start finds whole chunks only. After an error in its manifest Pebble
// counts on the process to end; going on, it may remove a file that the manifest
// names, and then a later start refuses. That loses a cache and no more.
func TestWriteErrors(t *testing.T) {
	refused := 0
	for at := int64(0); at < 60; at++ {
		mem := vfs.NewMem()
		var left atomic.Int64 // writes until one fails
		left.Store(1 << 40)
		failing := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) == -1 {
				return errorfs.ErrInjected
			}
			return nil
		}))
		s, err := Open("/db", Options{Budget: 100 * chunkBytes, FS: failing})
		if err != nil {
			t.Fatal(err)
		}
		if err := putChunk(s.Tier(scopeOf(0), layout), t, 1); err != nil {
			t.Fatal(err)
		}
		left.Store(at)
		failed := false
		for n := byte(2); n <= 4 && !failed; n++ {
			failed = putChunk(s.Tier(scopeOf(0), layout), t, n) != nil
		}
		left.Store(1 << 40)
		_ = s.Close() // may complain about what failed before
		s, err = Open("/db", Options{Budget: 100 * chunkBytes, FS: mem})
		if errors.Is(err, fault.Unavailable) {
			refused++
			continue
		}
		if err != nil {
			t.Fatalf("after an error at write %d: %v", at, err)
		}
		for n := byte(1); n <= 4; n++ {
			got := here(s.Tier(scopeOf(0), layout), t, n)
			if got != 0 && got != len(layout) || n == 1 && got == 0 {
				t.Errorf("after an error at write %d: %d parts of chunk %d", at, got, n)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused > 20 {
		t.Errorf("%d of 60 starts after an error were refused", refused)
	}
}
