package index

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "/index"

func open(t *testing.T, fs vfs.FS, change ...func(*Options)) *Index {
	t.Helper()
	o := Options{Store: segment.ID{1}, FS: fs, SyncInterval: time.Hour}
	for _, f := range change {
		f(&o)
	}
	x, err := Open(dir, o)
	if err == nil {
		_, err = x.Scope(scope)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// scope has number 0 in every index of these tests.
var scope = storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{2}}

func shut(t *testing.T, x *Index) {
	t.Helper()
	if err := errors.Join(x.Close(), x.Close()); err != nil {
		t.Fatal(err)
	}
}

func entry(segmentNumber uint64, page uint32) Entry {
	return Entry{
		ID:      part.ID{Chunk: keys.Key{byte(page), byte(segmentNumber)}, Group: 1, Span: 2, HeadGroup: 300},
		Quality: 4, Checksum: uint64(page) * 77,
		Location: segment.Location{Segment: segmentNumber, Group: page - 1, Page: page, HeaderPages: 1, Entry: 5, Length: 9000},
	}
}

// load returns the entries by location and the settled segments.
func load(t *testing.T, x *Index) (map[segment.Location]Entry, []uint64) {
	t.Helper()
	all, settled := map[segment.Location]Entry{}, []uint64(nil)
	last := segment.Location{}
	err := x.Load(func(seq uint64) { settled = append(settled, seq) }, func(e Entry) error {
		if e.Location.Segment < last.Segment || e.Location.Segment == last.Segment && e.Location.Page <= last.Page {
			t.Errorf("%v after %v", e.Location, last)
		}
		last = e.Location
		all[e.Location] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, settled
}

func TestRoundTrip(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	if !x.Fresh() {
		t.Error("a new index is not fresh")
	}
	scopes := []storage.Scope{scope, {Namespace: [32]byte{1}}}
	want := map[segment.Location]Entry{}
	for i, s := range scopes {
		for range 2 {
			if n, err := x.Scope(s); err != nil || int(n) != i {
				t.Fatal(n, err)
			}
		}
		for seq := uint64(1); seq < 5; seq++ {
			for page := uint32(1); page < 9; page++ {
				e := entry(seq, page+10*uint32(i))
				e.Scope = uint16(i)
				x.Add(e)
				want[e.Location] = e
			}
		}
	}
	x.Remove(entry(3, 4).Location)
	delete(want, entry(3, 4).Location)
	x.Settled(1)
	x.Settled(2)
	x.RemoveSegment(2)
	maps.DeleteFunc(want, func(l segment.Location, _ Entry) bool { return l.Segment == 2 })
	for range 2 { // a restart changes nothing
		shut(t, x)
		x = open(t, fs)
		got, settled := load(t, x)
		if !maps.Equal(got, want) || !slices.Equal(settled, []uint64{1}) || !slices.Equal(x.Scopes(), scopes) || x.Fresh() {
			t.Fatalf("%d entries, want %d; settled %v; scopes %v", len(got), len(want), settled, x.Scopes())
		}
	}
	shut(t, x)
}

// What is called is written without Sync, by time or by bytes.
func TestWritesByItself(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"time":  func(o *Options) { o.SyncInterval = time.Millisecond },
		"bytes": func(o *Options) { o.SyncBytes = 20000 },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			x := open(t, fs, change)
			x.mu.Lock()
			written := x.done
			x.mu.Unlock()
			for page := uint32(1); page < 4; page++ {
				x.Add(entry(1, page))
			}
			<-written
			if err := x.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			if got, _ := load(t, after); len(got) != 3 {
				t.Errorf("%d entries after the power was lost", len(got))
			}
			shut(t, after)
			shut(t, x)
		})
	}
}

func TestRefused(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	x.Add(entry(1, 1))
	if _, err := Open(dir, Options{Store: segment.ID{1}, FS: fs}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("opened twice: %v", err)
	}
	shut(t, x)
	if _, err := Open(dir, Options{FS: fs}); !errors.Is(err, fault.Invalid) {
		t.Errorf("no store: %v", err)
	}
	_, err := Open(dir, Options{Store: segment.ID{2}, FS: fs})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), segment.ID{2}.String()) {
		t.Errorf("another store: %v", err)
	}
	x = open(t, fs)
	if got, _ := load(t, x); len(got) != 1 {
		t.Errorf("a refused Open changed the index: %d entries", len(got))
	}
	if err := x.db.Set([]byte(metaKey), []byte{9}, nil); err != nil {
		t.Fatal(err)
	}
	shut(t, x)
	if _, err = Open(dir, Options{Store: segment.ID{1}, FS: fs}); !errors.Is(err, fault.Invalid) {
		t.Errorf("another format: %v", err)
	}
}

// Whatever is damaged in whatever file: Open or Load says so, or entries are
// missing, and then so are the marks that came after them. Never a wrong one.
func TestDamage(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	want := map[segment.Location]Entry{}
	for seq := uint64(1); seq < 40; seq++ {
		for page := uint32(1); page < 40; page++ {
			e := entry(seq, page)
			x.Add(e)
			want[e.Location] = e
		}
		x.Settled(seq)
		if seq == 20 {
			if err := x.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	// As a kill leaves it: no flush.
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused, lost, sound := 0, 0, 0
	for _, name := range names {
		if name == "LOCK" || !strings.Contains(name, ".") && !strings.HasPrefix(name, "MANIFEST") {
			continue
		}
		for _, at := range []int{0, 1, 2, 3} {
			bad := copyFS(t, fs, dir)
			damage(t, bad, dir+"/"+name, at)
			x, err := Open(dir, Options{Store: segment.ID{1}, FS: bad})
			if err != nil {
				if !errors.Is(err, fault.Corrupt) {
					t.Errorf("%s at %d: %v", name, at, err)
				}
				refused++
				continue
			}
			settled := map[uint64]bool{}
			perSegment := map[uint64]int{}
			err = x.Load(func(seq uint64) { settled[seq] = true }, func(e Entry) error {
				if want[e.Location] != e {
					t.Errorf("%s at %d: a wrong entry %+v", name, at, e)
				}
				perSegment[e.Location.Segment]++
				return nil
			})
			if err != nil {
				refused++
			} else {
				for seq := range settled {
					if perSegment[seq] != 39 {
						t.Errorf("%s at %d: segment %d is settled and has %d entries", name, at, seq, perSegment[seq])
					}
				}
				if len(settled) < 39 {
					lost++
				} else {
					sound++
				}
			}
			if err := x.Close(); err != nil {
				t.Logf("%s at %d: close: %v", name, at, err)
			}
			if err := Destroy(dir, bad); err != nil {
				t.Fatal(err)
			}
			shut(t, open(t, bad))
		}
	}
	if refused == 0 || lost == 0 {
		t.Errorf("%d refused, %d lost entries, %d sound: the damage was not where it matters", refused, lost, sound)
	}
	shut(t, x)
}

// copyFS copies one directory.
func copyFS(t *testing.T, fs vfs.FS, dir string) vfs.FS {
	t.Helper()
	out := vfs.NewMem()
	if _, err := vfs.Clone(fs, out, dir, dir); err != nil {
		t.Fatal(err)
	}
	return out
}

// damage changes 8 bytes at at quarters of the file.
func damage(t *testing.T, fs vfs.FS, name string, at int) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if size := info.Size(); size > 8 {
		if _, err := f.WriteAt([]byte("DAMAGED!"), (size-8)*int64(at)/3); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
