package nvme

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

var (
	benchParts = flag.Int("nvme.parts", 20000, "parts of 4 KiB that BenchmarkRestart stores")
	benchDir   = flag.String("nvme.dir", "", "where; default a temporary directory")
)

// BenchmarkRestart stores parts through the normal path, and measures a start
// with the index and one without, until the first chunk is found.
func BenchmarkRestart(b *testing.B) {
	dir := *benchDir
	if dir == "" {
		dir = b.TempDir()
	}
	small := storage.Layout{{RawLength: 4096, Layers: 1}}
	o := Options{Segment: segment.Options{Budget: int64(*benchParts)*16384 + 1<<30, Buffered: true}}
	s, _, err := Open(context.Background(), dir, o)
	if err != nil {
		b.Fatal(err)
	}
	tier, err := s.Tier(scopeOf(0), small)
	if err != nil {
		b.Fatal(err)
	}
	const workers = 32
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			buf := make([]byte, 4096)
			for n := w; n < *benchParts; n += workers {
				buf[0], buf[1], buf[2] = byte(n), byte(n>>8), byte(n>>16)
				d := &part.Descriptor{
					ID: part.ID{Chunk: benchKey(n)}, Tokens: 256, Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion,
					StoredLength: 4096, RawLength: 4096,
				}
				d.Table, _ = part.Checksums(nil, buf, 1)
				if err := part.Seal(d); err != nil {
					b.Error(err)
				}
				if out, err := tier.Put(context.Background(), d, buf); err != nil || out != storage.Published {
					b.Errorf("%v, %v", out, err)
					return
				}
			}
		})
	}
	group.Wait()
	memory := float64(s.Stats().Metadata) / float64(*benchParts)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for _, what := range []string{"index", "rebuild"} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if what == "rebuild" {
					if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
						b.Fatal(err)
					}
				}
				s, report, err := Open(context.Background(), dir, o)
				if err != nil || report.Parts != *benchParts {
					b.Fatalf("%+v, %v", report, err)
				}
				tier, err := s.Tier(scopeOf(0), small)
				if err != nil {
					b.Fatal(err)
				}
				if n, _ := tier.Match([]keys.Key{benchKey(1)}, 0); n != 1 {
					b.Fatal("the first match after a restart misses")
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(memory, "directory-B/part")
		})
	}
}

// benchKey spreads n over the key as a hash would.
func benchKey(n int) (k keys.Key) {
	x := uint64(n) * 0x9E3779B97F4A7C15
	for i := range 16 {
		k[i] = byte(x >> (8 * (i % 8)))
	}
	k[15], k[14], k[13] = byte(n), byte(n>>8), byte(n>>16)
	return k
}
