package nvme

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/segment"
)

// device is a file system that fails while down is set, or one call in every.
type device struct {
	segment.SystemFS
	down  atomic.Bool
	every atomic.Int64
	calls atomic.Int64
}

func (d *device) err() error {
	if n := d.every.Load(); d.down.Load() || n > 0 && d.calls.Add(1)%n == 0 {
		return unix.EIO
	}
	return nil
}

func (d *device) Open(name string, buffered bool) (segment.File, error) {
	f, err := d.SystemFS.Open(name, buffered)
	return &failingFile{f, d}, errors.Join(err, d.err())
}

func (d *device) Create(name string, buffered bool) (segment.File, error) {
	if err := d.err(); err != nil {
		return nil, err
	}
	f, err := d.SystemFS.Create(name, buffered)
	return &failingFile{f, d}, err
}

func (d *device) Remove(name string) error {
	if err := d.err(); err != nil {
		return err
	}
	return d.SystemFS.Remove(name)
}

type failingFile struct {
	segment.File
	d *device
}

func (f *failingFile) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	if err := f.d.err(); err != nil {
		return 0, err
	}
	return f.File.ReadVec(bufs, offset)
}

func (f *failingFile) WriteVec(bufs [][]byte, offset int64) error {
	if err := f.d.err(); err != nil {
		return err
	}
	return f.File.WriteVec(bufs, offset)
}

func (f *failingFile) Punch(offset, length int64) error {
	if err := f.d.err(); err != nil {
		return err
	}
	return f.File.Punch(offset, length)
}

var _ io.Closer = (*failingFile)(nil)

// The device goes while the tier runs: calls fail as Unavailable, the tier is
// off after a few, answers at once from then on, and is back after a restart.
func TestDeviceGone(t *testing.T) {
	dir := t.TempDir()
	dev := &device{}
	o := manual()
	o.Segment.FS = dev
	o.MaxErrors = 4
	var mu sync.Mutex
	heard := map[string]int{}
	o.Trouble = func(kind string, _ error) {
		mu.Lock()
		defer mu.Unlock()
		heard[kind]++
	}
	s := open(t, dir, o)
	tier := s.tier(0)
	for n := range 4 {
		putChunk(t, tier, n)
	}
	dev.down.Store(true)
	for i := range 20 {
		d, b := one(t, 0, 0, 0)
		var got part.Descriptor
		if _, err := tier.Get(t.Context(), d.ID, &got, b); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("get %d from a device that is gone: %v", i, err)
		}
	}
	d, b := one(t, 9, 0, 0)
	if _, err := tier.Put(t.Context(), d, b); !errors.Is(err, fault.Unavailable) {
		t.Errorf("put: %v", err)
	}
	if got, _ := tier.Match([]keys.Key{keyOf(0)}, 0); got != 0 {
		t.Errorf("%d chunks match", got)
	}
	st := s.Stats()
	if !st.Off || st.DeviceErrors != 4 {
		t.Errorf("off: %v after %d errors", st.Off, st.DeviceErrors)
	}
	mu.Lock()
	if heard["device"] != 4 || heard["off"] != 1 {
		t.Errorf("heard %v", heard)
	}
	mu.Unlock()
	_ = s.Store.Close() // complains about the device
	dev.down.Store(false)
	s = open(t, dir, o)
	want(t, "the device is back", s.tier(0), true, 0, 1, 2, 3)
	s.Close()
}

// Errors now and then, everywhere: no wrong bytes, no panic, the tables agree,
// and what is there after a restart is right.
func TestFlakyDevice(t *testing.T) {
	for _, every := range []int64{3, 5, 7, 11, 17} {
		dir := t.TempDir()
		dev := &device{}
		o := manual()
		o.Segment.FS = dev
		o.MaxErrors = 1 << 30
		s := open(t, dir, o)
		tier := s.tier(0)
		putChunk(t, tier, 1000)
		want(t, "before", tier, true, 1000)
		dev.every.Store(every)
		for n := range 60 {
			for i := range layout {
				d, b := one(t, n, i, 0)
				_, err := tier.Put(context.Background(), d, b)
				if k, _ := fault.KindOf(err); err != nil && k != fault.Unavailable && k != fault.Full {
					t.Fatalf("put: %v", err)
				}
				var got part.Descriptor
				buf := make([]byte, len(b))
				_, err = tier.Get(context.Background(), d.ID, &got, buf)
				if err == nil && string(buf) != string(b) {
					t.Fatal("other bytes")
				}
			}
			if n%7 == 0 {
				_, _ = tier.Delete(context.Background(), keyOf(n))
			}
		}
		dev.every.Store(0)
		st := s.Stats()
		if st.DeviceErrors == 0 {
			t.Errorf("every %d: nothing failed", every)
		}
		_ = s.Store.Close()
		s = open(t, dir, o)
		there := 0
		for n := range 60 {
			switch count(t, s.tier(0), n) {
			case 0:
			case len(layout):
				there++
			default:
				t.Errorf("every %d: half of chunk %d is there", every, n)
			}
		}
		if there == 0 && every > 3 {
			t.Errorf("every %d: nothing is there", every)
		}
		if err := s.checkTables(); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

// The index fails for good: the tier goes on, and the next start scans.
func TestIndexLost(t *testing.T) {
	dir := t.TempDir()
	var toggle errorfs.Toggle
	toggle.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})
	o := manual()
	o.IndexFS = errorfs.Wrap(vfs.Default, &toggle)
	s := open(t, dir, o)
	putChunk(t, s.tier(0), 1)
	if err := s.index.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	toggle.On()
	for n := 2; n < 8; n++ {
		putChunk(t, s.tier(0), n)
	}
	if err := s.index.Sync(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("sync: %v", err)
	}
	if ok, err := s.tier(0).Delete(t.Context(), keyOf(3)); !ok || err != nil {
		t.Errorf("delete: %v, %v", ok, err)
	}
	if !s.Stats().IndexLost {
		t.Error("nobody noticed")
	}
	want(t, "without index", s.tier(0), true, 1, 2, 4, 5, 6, 7)
	_ = s.Store.Close()
	toggle.Off()
	s = open(t, dir, manual())
	want(t, "after a restart", s.tier(0), true, 1, 2, 4, 5, 6, 7)
	want(t, "deleted", s.tier(0), false, 3)
	s.Close()
}

// A directory that cannot be written at start is an error with its name, and
// nothing stays behind.
func TestNoDevice(t *testing.T) {
	if _, _, err := Open(t.Context(), "/proc/no/such/place", manual()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	o := manual()
	o.Segment.Budget = 0
	if _, _, err := Open(t.Context(), t.TempDir(), o); !errors.Is(err, fault.Invalid) {
		t.Errorf("no budget: %v", err)
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.MaxParts = 1 }, func(o *Options) { o.ForwardPercent = 99 }, func(o *Options) { o.MaxErrors = -1 },
		func(o *Options) { o.PendingTimeout = -1 }, func(o *Options) { o.MaxPending = -1 }, func(o *Options) { o.Tick = 1 },
	} {
		o := manual()
		change(&o)
		if _, _, err := Open(t.Context(), t.TempDir(), o); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
