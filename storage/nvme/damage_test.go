package nvme

import (
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
)

const damageDir = "/tier"

// damaged is a copy of a machine in which one bit of a file is another.
func (m *machine) damaged(t *testing.T, name string, at int) *machine {
	n := m.killed()
	if flipped, ok := n.segments.Bytes(name); ok {
		flipped[at] ^= 1 << (at % 8)
		n.segments.Replace(name, flipped)
		return n
	}
	b := indexFile(t, n.index, name)
	b[at] ^= 1 << (at % 8)
	f, err := n.index.Create(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func indexFile(t *testing.T, fs vfs.FS, name string) []byte {
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// damageable is a store that was killed twice: with sealed, settled and open
// segments, and an index of tables and a log. Chunk 3 was deleted.
func damageable(t *testing.T) (m *machine, chunks []int) {
	m = newMachine(1)
	next := 0
	for range 2 {
		s := m.open(t)
		tier, err := s.Tier(scopeOf(0), layout)
		if err != nil {
			t.Fatal(err)
		}
		for range 9 {
			putChunk(t, tier, next)
			chunks = append(chunks, next)
			next++
		}
		if next == 9 {
			_, err = tier.Delete(t.Context(), keyOf(3))
			chunks = slices.DeleteFunc(chunks, func(n int) bool { return n == 3 })
		}
		awaitSealed(t, s)
		s.settleSealed()
		if err := errors.Join(err, s.index.Sync(t.Context())); err != nil {
			t.Fatal(err)
		}
		m = m.killed()
		_ = s.Close() // its device is gone
	}
	return m, chunks
}

// names of all files with a kind for each.
func (m *machine) files(t *testing.T) map[string]string {
	kinds := map[string]string{}
	for _, n := range m.segments.Names() {
		kinds[n] = path.Base(n)
		if strings.HasSuffix(n, ".seg") {
			kinds[n] = "segment"
		}
	}
	names, err := m.index.List(path.Join(damageDir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		kind, _, _ := strings.Cut(n, "-")
		if dot := strings.LastIndexByte(n, '.'); dot > 0 && kind == n {
			kind = "index *" + n[dot:]
		}
		if strings.HasPrefix(n, "marker") {
			kind = "marker"
		}
		kinds[path.Join(damageDir, "index", n)] = kind
	}
	return kinds
}

// One bit of any file of the tier is another: what is found is right, all that
// the bit was not part of is found, and the tier takes more.
func TestDamagedFiles(t *testing.T) {
	m, chunks := damageable(t)
	type sums struct{ flips, hits, lost, rebuilt int }
	all := map[string]*sums{}
	for name, kind := range m.files(t) {
		size := 0
		if b, ok := m.segments.Bytes(name); ok {
			size = len(b)
		} else {
			size = len(indexFile(t, m.index, name))
		}
		sum := all[kind]
		if sum == nil {
			sum = &sums{}
			all[kind] = sum
		}
		for at := 0; at < size; {
			n := m.damaged(t, name, at)
			s, report, err := n.start()
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, at, err)
			}
			sum.flips++
			if report.Rebuilt != "" {
				sum.rebuilt++
			}
			hits := countDamaged(t, s, chunks)
			sum.hits += hits
			sum.lost += len(chunks) - hits
			// A bit of the index costs nothing, one of a segment at most what lies in it.
			if lost := len(chunks) - hits; lost > 0 && (kind != "segment" || lost > 7) {
				t.Errorf("%s, byte %d: %d chunks are lost", name, at, lost)
			}
			tier, err := s.Tier(scopeOf(0), layout)
			if err != nil {
				t.Fatal(err)
			}
			putChunk(t, tier, 100)
			want(t, "after damage", tier, true, 100)
			if err := errors.Join(s.checkTables(), s.Close()); err != nil {
				t.Errorf("%s, byte %d: %v", name, at, err)
			}
			// Everywhere in what is small, and of segments the pages' beginnings, where
			// headers are: one page's first bytes, the next one's further on.
			if kind == "segment" {
				at = at/4096*4096 + 4096 + 131 - at%4096
			} else {
				at += 1 + size/25
			}
		}
	}
	for _, kind := range []string{"STORE", "segment", "index *.sst", "index *.log", "MANIFEST", "OPTIONS"} {
		if all[kind] == nil || all[kind].hits == 0 {
			t.Errorf("no file of this kind: %s", kind)
		}
	}
	for kind, sum := range all {
		t.Logf("counted: %s: %+v, 0 wrong", kind, *sum)
	}
	if all["segment"].lost == 0 || all["index *.sst"].rebuilt == 0 {
		t.Error("the damage did no harm: the test shows nothing")
	}
}

// countDamaged counts the chunks that are found; the bytes of the others are a
// miss or said to be damaged.
func countDamaged(t *testing.T, s *Store, chunks []int) (hits int) {
	tier, err := s.Tier(scopeOf(0), layout)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range append([]int{3}, chunks...) {
		there, err := present(tier, n, func(err error) bool { return errors.Is(err, fault.Corrupt) })
		if err != nil {
			t.Fatal(err)
		}
		if there == len(layout) {
			hits++
		}
		if n == 3 && there > 0 {
			t.Errorf("%d parts of a chunk that was deleted", there)
		}
	}
	return hits
}
