package nvme

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
)

// one makes part i of chunk n; variant changes the bytes.
func one(tb testing.TB, n, i, variant int) (*part.Descriptor, []byte) {
	tb.Helper()
	d, b, err := make1(n, i, variant)
	if err != nil {
		tb.Fatal(err)
	}
	return d, b
}

func make1(n, i, variant int) (*part.Descriptor, []byte, error) {
	return makePart(n, i, variant, layout[i])
}

func makePart(n, i, variant int, p storage.PartSpec) (*part.Descriptor, []byte, error) {
	b := make([]byte, p.RawLength)
	words := rand.NewPCG(uint64(n), uint64(i)<<8|uint64(variant))
	for j := 0; j < len(b); j += 8 {
		binary.LittleEndian.PutUint64(b[j:], words.Uint64())
	}
	d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keyOf(n)}, Parent: keyOf(n - 1), Ordinal: uint32(n)}, p, b)
	return d, b, err
}

func keyOf(n int) (k keys.Key) {
	k[0], k[1], k[2], k[15], k[20] = byte(n), byte(n>>8), byte(n>>16), 1, byte(n)
	return k
}

func putChunk(tb testing.TB, t storage.Tier, n int) {
	tb.Helper()
	for i := range layout {
		d, b := one(tb, n, i, 0)
		if out, err := t.Put(context.Background(), d, b); err != nil || out != storage.Kept && out != storage.Published {
			tb.Fatalf("chunk %d, part %d: %v, %v", n, i, out, err)
		}
	}
}

// present counts the parts of the chunk that are there, all of them right. An
// error that is not excused ends it; nil excuses none.
func present(t storage.Tier, n int, excused func(error) bool) (parts int, err error) {
	for i := range layout {
		d, b, err := make1(n, i, 0)
		if err != nil {
			return parts, err
		}
		right, err := tiertest.Right(t, d, b)
		if err != nil && (excused == nil || !excused(err)) {
			return parts, err
		}
		if right {
			parts++
		}
	}
	return parts, nil
}

func count(tb testing.TB, t storage.Tier, n int) (parts int) {
	tb.Helper()
	parts, err := present(t, n, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return parts
}

// want fails unless chunks are there, whole, or not at all.
func want(tb testing.TB, what string, t storage.Tier, there bool, chunks ...int) {
	tb.Helper()
	for _, n := range chunks {
		got := count(tb, t, n)
		if there && got != len(layout) || !there && got != 0 {
			tb.Errorf("%s: %d parts of chunk %d are there; want all of it: %v", what, got, n, there)
		}
	}
}

// image copies what a kill would leave: the files as they are, holes included,
// without any of what Close does.
func image(t *testing.T, dir string) string {
	t.Helper()
	out := t.TempDir()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		to := filepath.Join(out, strings.TrimPrefix(path, dir))
		if err != nil || e.IsDir() {
			return errors.Join(err, os.MkdirAll(to, 0o700))
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		zeros := make([]byte, segment.PageBytes)
		for at := 0; at < len(b); at += segment.PageBytes {
			if page := b[at:min(at+segment.PageBytes, len(b))]; !bytes.Equal(page, zeros[:len(page)]) {
				_, werr := f.WriteAt(page, int64(at))
				err = errors.Join(err, werr)
			}
		}
		return errors.Join(err, f.Truncate(int64(len(b))), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// manual are options with which nothing happens by itself.
func manual() Options {
	o := smallOptions()
	o.Tick = time.Hour
	o.Segment.SyncInterval = time.Hour
	return o
}

// awaitSealed waits for the keeper of the segments, who seals what is full.
func awaitSealed(t *testing.T, s *Store) {
	until := time.Now().Add(time.Minute)
	for !slices.ContainsFunc(s.segments.Segments(), func(i segment.Info) bool { return i.State == segment.StateSealed }) {
		if time.Now().After(until) {
			t.Fatal("no segment is sealed")
		}
		time.Sleep(time.Millisecond)
	}
}

// A killed store has everything that was acknowledged, whatever of the index
// had been written: all of it, some, or nothing at all.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	tier := s.tier(0)
	for n := range 12 {
		putChunk(t, tier, n)
		if n == 4 { // some segments settled, some entries written
			awaitSealed(t, s.Store)
			s.settleSealed()
			if err := s.index.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n == 8 {
			if _, err := tier.Delete(t.Context(), keyOf(2)); err != nil {
				t.Fatal(err)
			}
			putChunk(t, s.tier(1), 2)
		}
	}
	d, b := one(t, 20, 0, 0) // incomplete
	if out, err := tier.Put(t.Context(), d, b); err != nil || out != storage.Kept {
		t.Fatal(out, err)
	}
	there := []int{0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	check := func(what, dir string, rebuilt bool) {
		t.Helper()
		o := manual()
		scans := 0
		o.Progress = func(done, total int) { scans = total }
		s2, report, err := Open(t.Context(), dir, o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		u := tested{t, dir, s2}
		defer u.Close()
		if (report.Rebuilt != "") != rebuilt || report.Scanned != scans {
			t.Errorf("%s: %+v, %d scans", what, report, scans)
		}
		if !rebuilt && report.Scanned >= report.Segments {
			t.Errorf("%s: all %d segments were scanned beside a sound index", what, report.Segments)
		}
		// The first match after a restart hits.
		list := []keys.Key{keyOf(0), keyOf(1), keyOf(2)}
		if got, _ := u.tier(0).Match(list, 0); got != 2 {
			t.Errorf("%s: %d chunks match, want 2", what, got)
		}
		want(t, what, u.tier(0), true, there...)
		want(t, what, u.tier(0), false, 2, 20)
		want(t, what, u.tier(1), true, 2)
		want(t, what, u.tier(1), false, 0, 1, 3)
		putChunk(t, u.tier(0), 20) // its half is gone and in nobody's way
		want(t, what, u.tier(0), true, 20)
	}
	check("killed", image(t, dir), false)

	noIndex := image(t, dir)
	if err := os.RemoveAll(filepath.Join(noIndex, "index")); err != nil {
		t.Fatal(err)
	}
	check("no index", noIndex, true)

	damaged := 0
	err := fs.WalkDir(os.DirFS(dir), "index", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "LOCK") {
			return err
		}
		bad := image(t, dir)
		name := filepath.Join(bad, path)
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			return err
		}
		for at := range b { // all of it
			b[at] ^= 0x55
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return err
		}
		o := manual()
		s2, report, err := Open(t.Context(), bad, o)
		if err != nil {
			t.Errorf("%s damaged: %v", path, err)
			return nil
		}
		u := tested{t, bad, s2}
		want(t, path+" damaged", u.tier(0), true, there...)
		want(t, path+" damaged", u.tier(0), false, 2, 20)
		if report.Rebuilt != "" {
			damaged++
		}
		u.Close()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if damaged == 0 {
		t.Error("no damage made the index unreadable")
	}

	s.Close()
	check("closed", dir, false)
}

// An index of some time ago, as a backup brings back, names places whose bytes
// were given back since. Where a chunk was stored again elsewhere, that one is it.
func TestIndexOfSomeTimeAgo(t *testing.T) {
	dir := t.TempDir()
	index, old := filepath.Join(dir, "index"), filepath.Join(t.TempDir(), "old")
	s := open(t, dir, manual())
	for n := range 4 {
		putChunk(t, s.tier(0), n)
	}
	s.Close()
	must(t, os.CopyFS(old, os.DirFS(index)))

	s = open(t, dir, manual())
	deleteAll(t, s.tier(0), 1, 2)
	putChunk(t, s.tier(0), 2)
	s.Close()
	must(t, os.RemoveAll(index))
	must(t, os.CopyFS(index, os.DirFS(old)))

	for range 2 { // what the first start made of it, the second finds
		s = open(t, dir, manual())
		want(t, "old index", s.tier(0), true, 0, 2, 3)
		s.Close()
	}
	s = open(t, dir, manual())
	defer s.Close()
	d, b := one(t, 1, 0, 0)
	if _, err := s.tier(0).Get(t.Context(), d.ID, d, b); !errors.Is(err, fault.Corrupt) {
		t.Errorf("a chunk whose bytes were given back: %v, want corrupt", err)
	}
	want(t, "read once", s.tier(0), false, 1)
}

// The index of another store is refused, and nothing is touched.
func TestForeignIndex(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		s := open(t, dir, manual())
		putChunk(t, s.tier(0), 1)
		s.Close()
	}
	if err := os.RemoveAll(filepath.Join(a, "index")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(a, "index"), os.DirFS(filepath.Join(b, "index"))); err != nil {
		t.Fatal(err)
	}
	before := files(t, a)
	if _, _, err := Open(t.Context(), a, manual()); !errors.Is(err, fault.Invalid) {
		t.Fatalf("a foreign index: %v", err)
	}
	if after := files(t, filepath.Join(a, "segments")); len(after) == 0 || !strings.Contains(before, after) {
		t.Error("the refused start changed segments")
	}
	if err := os.RemoveAll(filepath.Join(a, "index")); err != nil {
		t.Fatal(err)
	}
	s := open(t, a, manual())
	want(t, "without it", s.tier(0), true, 1)
	s.Close()
}

// files lists names and contents of segment files.
func files(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".seg") {
			b, err := os.ReadFile(path)
			all.WriteString(filepath.Base(path))
			all.Write(b)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// Two processes do not share a store.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, manual())
	defer s.Close()
	if _, _, err := Open(t.Context(), dir, manual()); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("opened twice: %v", err)
	}
	putChunk(t, s.tier(0), 1)
}
