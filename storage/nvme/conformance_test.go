package nvme

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
)

// Fewer and shorter explorations than the default: each step writes files.
// Flags on the command line win.
func TestMain(m *testing.M) {
	if os.Getenv(rebuildEnv) != "" {
		rebuildChild()
	}
	if os.Getenv(childEnv) != "" {
		writerChild()
	}
	for name, v := range map[string]string{"rapid.checks": "25", "rapid.steps": "40"} {
		if err := flag.Set(name, v); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

var layout = storage.Layout{
	{HeadGroup: 0, RawLength: 8192, Layers: 4},
	{HeadGroup: 1, RawLength: 8192, Layers: 4},
	{Group: 1, RawLength: 512, Layers: 1},
}

func scopeOf(i int) storage.Scope {
	return storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{byte(i + 1)}}
}

// smallOptions are a budget of 16 segments of 64 KiB, three chunks each. Chunks
// that miss parts stay, however slow the disk is.
func smallOptions() Options {
	return Options{
		Segment:        segment.Options{Budget: 1 << 20, Reserve: 1 << 20, SegmentBytes: 64 << 10, Lanes: 1, Buffered: true},
		PendingTimeout: time.Hour,
	}
}

type tested struct {
	tb  tiertest.TB
	dir string
	*Store
}

func open(tb tiertest.TB, dir string, o Options) tested {
	s, _, err := Open(context.Background(), dir, o)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return tested{tb, dir, s}
}

func (s tested) tier(scope int) *Tier {
	t, err := s.Store.Tier(scopeOf(scope), layout)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	return t
}

func (s tested) Tier(scope int) storage.Tier { return s.tier(scope) }

func (s tested) Damage(scope int, id part.ID) {
	f, err := s.tier(scope).locate(id, false)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "segments", fmt.Sprintf("*%016x.seg", f.location.Segment)))
	if err != nil || len(names) != 1 {
		s.tb.Fatalf("%v, %v", names, err)
	}
	file, err := os.OpenFile(names[0], os.O_RDWR, 0)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	var b [1]byte
	at := int64(f.location.Page)*segment.PageBytes + 100
	if _, err := file.ReadAt(b[:], at); err != nil {
		s.tb.Fatalf("%v", err)
	}
	b[0] ^= 4
	if _, err := file.WriteAt(b[:], at); err != nil {
		s.tb.Fatalf("%v", err)
	}
	if err := file.Close(); err != nil {
		s.tb.Fatalf("%v", err)
	}
}

func (s tested) Close() {
	if err := s.checkTables(); err != nil {
		s.tb.Errorf("%v", err)
	}
	if err := s.Store.Close(); err != nil {
		s.tb.Errorf("%v", err)
	}
}

func TestConformance(t *testing.T) {
	tiertest.Run(t, &tiertest.Subject{
		Name: "nvme", Layout: layout, Room: 1 << 20, Least: 9 * 16896, Persistent: true,
		Open: func(tb tiertest.TB, dir string) tiertest.Store { return open(tb, dir, smallOptions()) },
	})
}
