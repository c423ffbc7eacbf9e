package nvme

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
)

// ten chunks lie in seven segments.
const (
	ten   = 10
	seven = 7
)

func tenChunks(t *testing.T) (dir string, s tested) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	s = open(t, dir, manual())
	for n := range ten {
		putChunk(t, s.tier(0), n)
	}
	return dir, s
}

// checked is what Check says.
type checked struct {
	CheckReport
	files    []segment.FileReport
	problems []segment.Problem
}

func check(t *testing.T, dir string) (c checked, err error) {
	t.Helper()
	before := everything(t, dir)
	c.CheckReport, err = Check(t.Context(), dir, segment.Visitor{
		File:    func(f segment.FileReport) { c.files = append(c.files, f) },
		Problem: func(p segment.Problem) { c.problems = append(c.problems, p) },
	})
	if before != everything(t, dir) {
		t.Error("the check changed files")
	}
	return c, err
}

// everything is the names and contents of all files.
func everything(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %d %x\n", path, len(b), sha256.Sum256(b))
		return err
	}))
	return all.String()
}

func mustCheck(t *testing.T, dir string) checked {
	t.Helper()
	c, err := check(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *checked) sum(f func(*segment.FileReport) int) (n int) {
	for i := range c.files {
		n += f(&c.files[i])
	}
	return n
}

func TestCheckSound(t *testing.T) {
	dir, s := tenChunks(t)
	if ok, err := s.tier(0).Delete(t.Context(), keyOf(4)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.Close()
	c := mustCheck(t, dir)
	deleted := len(layout)
	sound := ten*len(layout) - deleted
	if c.Segments.Problems != 0 || c.Segments.Sealed != seven || c.Segments.Parts != sound+deleted || c.Segments.Punched != deleted {
		t.Errorf("%+v", c.Segments)
	}
	if i := c.Index; i.Err != nil || i.Missing || i.Scopes != 1 || i.Agreed != sound || i.Stale+i.Gone+i.Unnamed+i.Unsettled != 0 || i.Settled != seven {
		t.Errorf("%+v", i)
	}
	if n := c.sum(func(f *segment.FileReport) int { return f.Sound }); n != sound || len(c.files) != seven {
		t.Errorf("%d parts sound in %+v", n, c.files)
	}
	for _, f := range c.files {
		if f.Condition != segment.Sealed || f.Class.Name != normal.Name || f.Parts != f.Sound+f.Punched {
			t.Errorf("%+v", f)
		}
	}
}

// What a kill leaves is no damage.
func TestCheckKilled(t *testing.T) {
	dir, s := tenChunks(t)
	if err := s.segments.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitSealed(t, s.Store)
	s.settleSealed()
	if err := s.index.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Deleted, and the index has not heard of it: entries that name nothing.
	s.mu.Lock()
	locs := s.Store.dir.removeChunk(s.Store.dir.lookup(0, new(keyOf(0)), isVisible), nil)
	s.st.Chunks--
	s.mu.Unlock()
	s.punch(locs)
	left := image(t, dir)
	s.Close()
	c := mustCheck(t, left)
	if c.Segments.Problems != 0 || c.Index.Settled == 0 || c.Index.Unsettled == 0 || c.Index.Agreed == 0 || c.Index.Stale != len(layout) {
		t.Errorf("%+v, %+v", c.CheckReport, c.problems)
	}
	if err := os.Remove(filepath.Join(left, segmentsName, "0000000000000001.seg")); err != nil {
		t.Fatal(err)
	}
	if c := mustCheck(t, left); c.Index.Gone == 0 || c.Index.Err != nil {
		t.Errorf("%+v", c.Index)
	}
}

// Each region of each file is damaged once.
func TestCheckDamaged(t *testing.T) {
	good, s := tenChunks(t)
	s.Close()
	flip := func(at int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if at < 0 {
				at += int64(len(b))
			}
			b[at] ^= 4
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	const page = segment.PageBytes
	first := "0000000000000001.seg"
	for name, c := range map[string]struct {
		file   string
		damage func(*testing.T, string)
		// parts that are damaged, problems, and the file's condition.
		parts, problems int
		condition       segment.Condition
	}{
		"a copy of the superblock": {"STORE", flip(100), 0, 1, segment.Sealed},
		"head":                     {first, flip(20), 0, 1, segment.Sealed},
		"head and trailer":         {first, func(t *testing.T, p string) { flip(20)(t, p); flip(-20)(t, p) }, 0, 1, segment.Unreadable},
		"group header":             {first, flip(page + 40), 0, 1, segment.Sealed},
		"part":                     {first, flip(2*page + 17), 1, 1, segment.Sealed},
		"table":                    {first, flip(-page - 4000), 0, 1, segment.Sealed},
		"trailer":                  {first, flip(-4000), 0, 0, segment.Unsealed},
		"cut short":                {first, func(t *testing.T, p string) { must(t, os.Truncate(p, 3*page)) }, 0, 0, segment.Unsealed},
		"of another name": {first, func(t *testing.T, p string) {
			must(t, os.Rename(p, filepath.Join(filepath.Dir(p), "00000000000000ff.seg")))
		}, 0, 1, segment.Foreign},
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t, good)
			c.damage(t, filepath.Join(dir, segmentsName, c.file))
			got := mustCheck(t, dir)
			if n := got.sum(func(f *segment.FileReport) int { return f.Damaged }); n != c.parts || got.Segments.Problems != c.problems || len(got.problems) != c.problems {
				t.Errorf("%d parts damaged, %+v", n, got.problems)
			}
			if !slices.ContainsFunc(got.files, func(f segment.FileReport) bool { return f.Condition == c.condition }) {
				t.Errorf("no file is %s: %+v", c.condition, got.files)
			}
		})
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"another store's segment": func(t *testing.T, dir string) {
			other, s := tenChunks(t)
			s.Close()
			b, err := os.ReadFile(filepath.Join(other, segmentsName, first))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, segmentsName, first), b, 0o600))
		},
		"another file": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, segmentsName, "lost+found"), []byte("x"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t, good)
			damage(t, dir)
			c := mustCheck(t, dir)
			if !slices.ContainsFunc(c.files, func(f segment.FileReport) bool { return f.Condition == segment.Foreign }) {
				t.Errorf("%+v", c.files)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An index that cannot be used is named, and made anew; one that is not there
// only has to be.
func TestCheckIndex(t *testing.T) {
	good, s := tenChunks(t)
	s.Close()
	for name, damage := range map[string]func(t *testing.T, dir string){
		"gone": func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, indexName))) },
		"damaged": func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, indexName, "MANIFEST-*"))
			must(t, err)
			for _, f := range found {
				must(t, os.WriteFile(f, []byte("no manifest"), 0o600))
			}
		},
		"of another store": func(t *testing.T, dir string) {
			other, s := tenChunks(t)
			s.Close()
			must(t, os.RemoveAll(filepath.Join(dir, indexName)))
			must(t, os.Rename(filepath.Join(other, indexName), filepath.Join(dir, indexName)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t, good)
			damage(t, dir)
			c := mustCheck(t, dir)
			if c.Segments.Problems != 0 || c.Index.Agreed != 0 || c.Index.Missing != (name == "gone") || (c.Index.Err == nil) != (name == "gone") {
				t.Errorf("%+v", c.CheckReport)
			}
			var progress []string
			r, err := Rebuild(t.Context(), dir, func(done, total int) { progress = append(progress, fmt.Sprint(done, "/", total)) }, nil)
			must(t, err)
			if r.Parts != ten*len(layout) || r.Scanned != seven || strings.Join(progress, " ") != "1/7 2/7 3/7 4/7 5/7 6/7 7/7" {
				t.Errorf("%+v, %v", r, progress)
			}
			rebuilt(t, dir)
		})
	}
}

// rebuilt fails unless the store is sound and opens without a scan, with all
// chunks.
func rebuilt(t *testing.T, dir string) {
	t.Helper()
	c := mustCheck(t, dir)
	if c.Segments.Problems != 0 || c.Index.Err != nil || c.Index.Agreed != ten*len(layout) || c.Index.Unsettled != 0 {
		t.Errorf("%+v", c.CheckReport)
	}
	if _, err := os.Stat(filepath.Join(dir, indexName+".old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old index is still there: %v", err)
	}
	s, r, err := Open(t.Context(), dir, manual())
	must(t, err)
	if r.Scanned != 0 || r.Rebuilt != "" {
		t.Errorf("%+v", r)
	}
	allThere(t, tested{t, dir, s})
}

func allThere(t *testing.T, s tested) {
	t.Helper()
	for n := range ten {
		want(t, "stored", s.tier(0), true, n)
	}
	s.Close()
}

// rebuildEnv makes the test binary rebuild an index and kill itself after so
// many segments: "directory segments".
const rebuildEnv = "NVME_TEST_REBUILD"

func rebuildChild() {
	at := strings.LastIndexByte(os.Getenv(rebuildEnv), ' ')
	dir, n := os.Getenv(rebuildEnv)[:at], os.Getenv(rebuildEnv)[at+1:]
	after, _ := strconv.Atoi(n)
	_, err := Rebuild(context.Background(), dir, func(done, _ int) {
		if done == after {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}, nil)
	fmt.Println(err)
	os.Exit(1)
}

// A rebuild that is killed leaves a store that opens with everything, and that
// can be rebuilt.
func TestRebuildKilled(t *testing.T) {
	good, s := tenChunks(t)
	s.Close()
	for after := 1; after <= seven; after++ {
		dir := image(t, good)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", rebuildEnv, dir, after))
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child was not killed: %v, %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, indexName+".old")); err != nil {
			t.Errorf("the old index is gone before the new one is complete: %v", err)
		}
		allThere(t, open(t, image(t, dir), manual()))
		_, err = Rebuild(t.Context(), dir, nil, nil)
		must(t, err)
		rebuilt(t, dir)
	}
}

// Nobody looks into a store that is open, and nothing that is no store is
// touched.
func TestOfflineRefuses(t *testing.T) {
	dir, s := tenChunks(t)
	empty := t.TempDir()
	foreign := t.TempDir()
	must(t, os.WriteFile(filepath.Join(foreign, "thesis.tex"), []byte("x"), 0o600))
	half := t.TempDir()
	must(t, os.Mkdir(filepath.Join(half, segmentsName), 0o700))
	inner := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(inner, segmentsName), 0o700))
	must(t, os.WriteFile(filepath.Join(inner, segmentsName, "thesis.tex"), []byte("x"), 0o600))
	all := map[string]func(dir string) error{
		"check": func(dir string) error { _, err := Check(t.Context(), dir, segment.Visitor{}); return err },
		"dump": func(dir string) error {
			return Dump(t.Context(), dir, 0, func(segment.Info, segment.Entry) error { return nil })
		},
		"rebuild": func(dir string) error { _, err := Rebuild(t.Context(), dir, nil, nil); return err },
	}
	for name, f := range all {
		for _, c := range []struct {
			dir  string
			want error
		}{
			{dir, fault.Busy}, {empty, fault.Miss}, {filepath.Join(empty, "none"), fault.Miss}, {half, fault.Miss},
			{foreign, fault.Invalid}, {inner, fault.Invalid}, {filepath.Join(dir, segmentsName), fault.Invalid},
		} {
			before := ""
			if errors.Is(c.want, fault.Invalid) && c.dir != filepath.Join(dir, segmentsName) {
				before = everything(t, c.dir)
			}
			if err := f(c.dir); !errors.Is(err, c.want) {
				t.Errorf("%s of %s: %v, want %v", name, c.dir, err, c.want)
			}
			if before != "" && before != everything(t, c.dir) {
				t.Errorf("%s changed %s", name, c.dir)
			}
		}
	}
	s.Close()
	left, err := os.ReadDir(empty)
	if err != nil || len(left) != 0 {
		t.Errorf("%v was made in an empty directory, %v", left, err)
	}

	// A store of a newer version.
	super := filepath.Join(dir, segmentsName, segment.StoreName)
	b, err := os.ReadFile(super)
	must(t, err)
	for page := b; len(page) > 0; page = page[segment.PageBytes:] {
		page[8]++
		binary.LittleEndian.PutUint64(page[segment.PageBytes-8:], crc64nvme.Checksum(page[:segment.PageBytes-8]))
	}
	must(t, os.WriteFile(super, b, 0o600))
	before := everything(t, dir)
	for name, f := range all {
		if err := f(dir); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "format") {
			t.Errorf("%s of a newer store: %v", name, err)
		}
	}
	if everything(t, dir) != before {
		t.Error("a newer store was changed")
	}
}

// A process that opens the store while it is read makes the answer worthless.
func TestOpenedMeanwhile(t *testing.T) {
	dir, s := tenChunks(t)
	s.Close()
	_, err := Check(t.Context(), dir, segment.Visitor{File: func(f segment.FileReport) {
		if f.Name == "0000000000000002.seg" {
			open(t, dir, manual()).Close()
		}
	}})
	if !errors.Is(err, fault.Busy) {
		t.Errorf("%v", err)
	}
}

func TestDumpSegment(t *testing.T) {
	dir, s := tenChunks(t)
	s.Close()
	var all, second []segment.Location
	must(t, Dump(t.Context(), dir, 0, func(i segment.Info, e segment.Entry) error {
		all = append(all, e.Location)
		if i.Class.Name != normal.Name || e.Scope != scopeOf(0) {
			t.Errorf("%+v, %+v", i, e)
		}
		return nil
	}))
	must(t, Dump(t.Context(), dir, 2, func(_ segment.Info, e segment.Entry) error {
		second = append(second, e.Location)
		return nil
	}))
	if len(all) != ten*len(layout) || len(second) == 0 || slices.ContainsFunc(second, func(l segment.Location) bool { return l.Segment != 2 }) {
		t.Errorf("%v, %v", all, second)
	}
	if err := Dump(t.Context(), dir, 99, nil); !errors.Is(err, fault.Miss) {
		t.Errorf("%v", err)
	}
}

// Pins are a property of the segments: an index that is made anew has them.
func TestRebuildPinned(t *testing.T) {
	dir, s := tenChunks(t)
	if m, err := s.tier(0).Pin(t.Context(), keysOf(1, 2)); err != nil || m.Chunks != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	s.Close()
	_, err := Rebuild(t.Context(), dir, nil, nil)
	must(t, err)
	if c := mustCheck(t, dir); c.Segments.Problems != 0 || c.Index.Agreed != ten*len(layout) {
		t.Errorf("%+v", c.CheckReport)
	}
	s = open(t, dir, manual())
	pinnedAre(t, "pinned", s.tier(0), true, 1, 2)
	pinnedAre(t, "not pinned", s.tier(0), false, 0, 3)
	allThere(t, s)
}
