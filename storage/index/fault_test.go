package index

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/larderkv/larder/api/fault"
)

// The device fails for good: Sync says so, Err stays, nothing ends the process,
// and later calls are dropped without waiting.
func TestDeviceFails(t *testing.T) {
	mem := vfs.NewMem()
	var toggle errorfs.Toggle
	toggle.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})
	var mu sync.Mutex
	kinds := map[string]int{}
	x := open(t, errorfs.Wrap(mem, &toggle), func(o *Options) {
		o.Trouble = func(kind string, _ error) {
			mu.Lock()
			defer mu.Unlock()
			kinds[kind]++
		}
	})
	x.Add(entry(1, 1))
	if err := x.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	toggle.On()
	x.Add(entry(1, 2))
	if err := x.Sync(context.Background()); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("sync on a failed device: %v", err)
	}
	for page := uint32(3); page < 100; page++ {
		x.Add(entry(1, page))
	}
	if x.Err() == nil || x.batch.Len() > 100 {
		t.Errorf("%v; %d bytes wait for a device that is gone", x.Err(), x.batch.Len())
	}
	mu.Lock()
	if kinds["fatal"] == 0 {
		t.Errorf("nobody was told: %v", kinds)
	}
	mu.Unlock()
	toggle.Off()
	if err := x.Close(); !errors.Is(err, fault.Unavailable) {
		t.Errorf("close: %v", err)
	}
	x = open(t, mem)
	if got, _ := load(t, x); len(got) < 1 || len(got) > 2 {
		t.Errorf("%d entries", len(got))
	}
	shut(t, x)
}

// A slow device bounds what waits.
func TestBehind(t *testing.T) {
	x := open(t, vfs.NewMem(), func(o *Options) { o.Behind = 4096 })
	for page := uint32(1); page < 1000; page++ {
		x.Add(entry(1, page))
	}
	if err := x.Sync(context.Background()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("sync: %v", err)
	}
	if err := x.Close(); !errors.Is(err, fault.Unavailable) {
		t.Errorf("close: %v", err)
	}
}

func TestSyncStops(t *testing.T) {
	x := open(t, vfs.NewMem())
	shut(t, x)
	if err := x.Sync(context.Background()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("sync after close: %v", err)
	}
	x.Add(entry(1, 1)) // dropped
}
