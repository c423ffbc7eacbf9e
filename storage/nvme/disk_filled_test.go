package nvme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/larderkv/larder/storage/tiertest"
)

// ownDisk is a file system of its own, of diskSize.
type ownDisk struct {
	dir     string
	fs      segment.FS
	indexFS vfs.FS
	// used is what the segments take.
	used func() int64
	// occupy lets somebody else take all that is free; release gives it back.
	occupy, release func()
}

const diskSize = 32 << 20

// diskPart is the length of a part in these tests: large, so that the disk is full
// soon.
const diskPart = 192 << 10

// simulatedDisk is the one that works everywhere.
func simulatedDisk(*testing.T) *ownDisk {
	fs := simfs.New(diskSize)
	return &ownDisk{
		dir: "/tier", fs: fs, indexFS: vfs.NewMem(), used: fs.Used,
		occupy: func() { fs.Resize(fs.Used()) }, release: func() { fs.Resize(diskSize) },
	}
}

// mountedDisk is a loop device with ext4, or where there is none a tmpfs; nil
// where this process may not mount at all.
func mountedDisk(t *testing.T) (d *ownDisk, what string) {
	at, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	what = "loop device"
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, diskSize)
	}
	if err == nil {
		err = run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image)
	}
	if err == nil {
		err = run("mount", "-o", "loop", image, at)
	}
	if err != nil {
		t.Logf("no loop device: %v", err)
		what = "tmpfs"
		if err = run("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", diskSize), "tmpfs", at); err != nil {
			t.Logf("no tmpfs: %v", err)
			return nil, ""
		}
	}
	t.Cleanup(func() {
		if err := run("umount", at); err != nil {
			t.Error(err)
		}
	})
	junk := filepath.Join(at, "junk")
	return &ownDisk{
		dir: filepath.Join(at, "tier"), fs: segment.SystemFS{}, indexFS: vfs.Default,
		used: func() (n int64) {
			names, err := filepath.Glob(filepath.Join(at, "tier", "segments", "*.seg"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if info, err := os.Stat(name); err == nil { // else it was dropped meanwhile
					n += info.Sys().(*syscall.Stat_t).Blocks * 512
				}
			}
			return n
		},
		occupy: func() {
			f, err := os.Create(junk)
			if err != nil {
				t.Fatal(err)
			}
			for err = error(nil); err == nil; {
				_, err = f.Write(make([]byte, 64<<10))
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			_ = f.Close() // what it could not write is none of our business
		},
		release: func() {
			if err := os.Remove(junk); err != nil {
				t.Fatal(err)
			}
		},
	}, what
}

// countingFS counts what a loop of tries would do.
type countingFS struct {
	segment.FS
	tries atomic.Int64
}

func (c *countingFS) Create(name string, buffered bool) (segment.File, error) {
	c.tries.Add(1)
	return c.FS.Create(name, buffered)
}

func (c *countingFS) Remove(name string) error {
	c.tries.Add(1)
	return c.FS.Remove(name)
}

var diskLayout = storage.Layout{{RawLength: diskPart, Layers: 4}}

type diskTier struct {
	t     *testing.T
	tier  *Tier
	tries *atomic.Int64
}

func (d diskTier) put(n int) error {
	p, b, err := makePart(n, 0, 0, diskLayout[0])
	if err != nil {
		d.t.Fatal(err)
	}
	before := d.tries.Load()
	_, err = d.tier.Put(context.Background(), p, b)
	if tries := d.tries.Load() - before; tries > 2*(makeRoomTries+2) {
		d.t.Fatalf("one put made and removed %d files", tries)
	}
	return err
}

func (d diskTier) has(n int) bool {
	p, b, err := makePart(n, 0, 0, diskLayout[0])
	if err != nil {
		d.t.Fatal(err)
	}
	right, err := tiertest.Right(d.tier, p, b)
	if err != nil {
		d.t.Fatal(err)
	}
	return right
}

// A budget beyond what the disk has: the oldest segment goes for each new one.
// Where others fill the disk puts fail or drop what is there, in bounded steps,
// and what is left is served; afterwards everything is as before. Deleted and
// cleared bytes are free when the call returns.
func testDiskFull(t *testing.T, disk *ownDisk, what string) {
	counting := &countingFS{FS: disk.fs}
	o := Options{Tick: time.Hour, IndexFS: disk.indexFS, Segment: segment.Options{
		Budget: 1 << 30, Reserve: 1 << 20, SegmentBytes: 1 << 20, Lanes: 1, Buffered: true, FS: counting,
	}}
	start := func() (tested, diskTier) {
		s := open(t, disk.dir, o)
		tier, err := s.Store.Tier(scopeOf(0), diskLayout)
		if err != nil {
			t.Fatal(err)
		}
		return s, diskTier{t, tier, &counting.tries}
	}
	s, d := start()
	n := 0
	for ; n < diskSize*3/2/diskPart; n++ {
		if err := d.put(n); err != nil {
			t.Fatalf("put %d: %v", n, err)
		}
		if !d.has(n) {
			t.Fatalf("chunk %d is not there", n)
		}
	}
	full := s.Stats()
	if full.DiskFullSegments == 0 || d.has(0) {
		t.Errorf("nothing was dropped: %+v", full)
	}
	if full.Segments.Free < o.Segment.Reserve-o.Segment.SegmentBytes {
		t.Errorf("%d bytes are free of a reserve of %d", full.Segments.Free, o.Segment.Reserve)
	}

	disk.occupy()
	refused, dropped := 0, full.DiskFullSegments
	for i := range 12 {
		if err := d.put(n + i); errors.Is(err, fault.Full) || errors.Is(err, fault.Unavailable) {
			refused++
		} else if err != nil || !d.has(n+i) {
			t.Fatalf("put on a full disk: %v", err)
		}
	}
	st := s.Stats()
	if st.Off {
		t.Error("a full disk turned the tier off")
	}
	if refused == 0 && st.DiskFullSegments == dropped {
		t.Error("the full disk made no difference")
	}
	disk.release()
	if err := d.put(n + 20); err != nil || !d.has(n+20) {
		t.Fatalf("put with space again: %v", err)
	}
	_ = s.Store.Close() // an index that met the full disk complains
	s, d = start()
	if !d.has(n + 20) {
		t.Error("what was put is lost over a restart")
	}
	from := n + 30
	for i := range 8 {
		if err := d.put(from + i); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.segments.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := disk.used()
	if ok, err := d.tier.Delete(t.Context(), keyOf(from)); !ok || err != nil || d.has(from) {
		t.Errorf("delete: %v, %v", ok, err)
	}
	deleted := before - disk.used()
	if deleted < diskPart*7/8 {
		t.Errorf("a deleted part of %d bytes gave back %d", diskPart, deleted)
	}
	chunks, bytes, err := s.Clear(t.Context(), func(storage.Scope) bool { return true })
	cleared := before - deleted - disk.used()
	// With each hole a block of the file system's own may come.
	if err != nil || chunks < 8 || cleared < bytes-int64(chunks)*segment.PageBytes || d.has(from+1) {
		t.Errorf("clear: %d chunks, %d bytes, %v; %d bytes are free", chunks, bytes, err, cleared)
	}
	t.Logf("counted: %s: %d puts of a disk with room for %d; %d segments dropped; %d of 12 refused while others filled it; delete gave back %d bytes, clear %d",
		what, n, diskSize/diskPart, full.DiskFullSegments, refused, deleted, cleared)
	if err := d.put(from + 40); err != nil || !d.has(from+40) {
		t.Errorf("put after a clear: %v", err)
	}
	s.Close()
}

func TestDiskFilled(t *testing.T) {
	t.Run("simulated", func(t *testing.T) { testDiskFull(t, simulatedDisk(t), "simulated disk") })
	t.Run("mounted", func(t *testing.T) {
		disk, what := mountedDisk(t)
		if disk == nil {
			// Not a pass in silence: the same ran above, on the simulated disk.
			t.Log("counted: this process may not mount: only the simulated disk was filled")
			return
		}
		testDiskFull(t, disk, what)
	})
}
