package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/segment"
	"golang.org/x/sys/unix"
)

// The benchmarks move armBytes at a time through a store and, alternating with
// it (A-B-B-A), through plain files with direct I/O: records of the same size,
// as many in flight, the same preallocation and syncs. An iteration is a pair of
// arms. They report the median ratio of the pairs, and what one arm needs:
//
//	go test -run '^$' -bench . -benchtime 15x ./storage/segment
const (
	armBytes  = 512 << 20
	inFlight  = 4
	syncBytes = 64 << 20
)

type arm struct {
	seconds, cpu float64
	device       int64
}

// measure times f and what it costs.
func measure(f func()) arm {
	before, c, start := deviceBytes(), cpuSeconds(), time.Now()
	f()
	return arm{time.Since(start).Seconds(), cpuSeconds() - c, deviceBytes() - before}
}

func cpuSeconds() float64 {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

// deviceBytes is what the process has had written.
func deviceBytes() (n int64) {
	b, _ := os.ReadFile("/proc/self/io")
	for _, l := range strings.Split(string(b), "\n") {
		_, _ = fmt.Sscanf(l, "write_bytes: %d", &n)
	}
	return n
}

// pairs runs both sides in turn and reports.
func pairs(b *testing.B, bytes int64, ours, raw func() arm) {
	b.Helper()
	var ratios, control []float64
	var a, r, last arm
	sum := func(to *arm, x arm) { to.seconds += x.seconds; to.cpu += x.cpu; to.device += x.device }
	n := 0
	for b.Loop() {
		var x, y arm
		if n%2 == 0 {
			x = ours()
			y = raw()
		} else {
			y = raw()
			x = ours()
			// Here two raw arms follow each other: A-B-B-A.
			control = append(control, last.seconds/y.seconds)
		}
		last = y
		sum(&a, x)
		sum(&r, y)
		ratios = append(ratios, y.seconds/x.seconds)
		n++
	}
	slices.Sort(ratios)
	slices.Sort(control)
	gib := float64(bytes) * float64(n) / (1 << 30)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(ratios[len(ratios)/10], "ratio-p10")
	b.ReportMetric(ratios[len(ratios)*9/10], "ratio-p90")
	if len(control) > 0 {
		b.ReportMetric(control[len(control)/2], "raw/raw")
	}
	b.ReportMetric(gib*1024/a.seconds, "MiB/s")
	b.ReportMetric(gib*1024/r.seconds, "raw-MiB/s")
	b.ReportMetric(a.cpu/gib, "cpu-s/GiB")
	b.ReportMetric(r.cpu/gib, "raw-cpu-s/GiB")
	if a.device > 0 {
		b.ReportMetric(float64(a.device)/(gib*(1<<30)), "write-amp")
	}
	b.ReportMetric(0, "ns/op")
}

// parallel calls f for 0..n-1 from so many goroutines.
func parallel(goroutines, n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				f(i)
			}
		})
	}
	wg.Wait()
}

func benchStore(b *testing.B) *segment.Store {
	s, err := segment.Open(context.Background(), filepath.Join(b.TempDir(), "store"), segment.Options{Budget: 4 << 30, Reserve: 1 << 30, Lanes: 1, ReadsInFlight: inFlight})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	return s
}

// benchMemory is armBytes of noise, mapped as an arena is. Both sides use it.
func benchMemory(b *testing.B) []byte {
	m, err := unix.Mmap(-1, 0, armBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(b, err)
	b.Cleanup(func() { must(b, unix.Munmap(m)) })
	pattern(1, m)
	return m
}

// benchRecords are the memory in parts.
func benchRecords(b *testing.B, m []byte, size int) []segment.Record {
	recs := make([]segment.Record, len(m)/size)
	for i := range recs {
		r := record(uint64(i), 1, 1, scope(1))
		r.Data = m[i*size:][:size]
		r.Part.StoredLength, r.Part.RawLength = uint32(size), uint32(size)
		var err error
		r.Part.Table, err = part.Checksums(nil, r.Data, 1)
		must(b, err)
		must(b, part.Seal(r.Part))
		recs[i] = r
	}
	return recs
}

// rawFile is a plain file with direct I/O, with space for bytes.
func rawFile(b *testing.B, name string, bytes int64) segment.File {
	f, err := segment.SystemFS{}.Create(name, false)
	must(b, err)
	must(b, f.Preallocate(bytes))
	return f
}

// rawWrite writes the memory into files as long as segments.
func rawWrite(b *testing.B, dir string, size int, m []byte) arm {
	var names []string
	per := segment.DefaultSegmentBytes / size * size
	a := measure(func() {
		for len(m) >= size {
			n := min(len(m)/size*size, per)
			names = append(names, filepath.Join(dir, fmt.Sprint("raw", len(names))))
			rawWriteFile(b, names[len(names)-1], size, m[:n])
			m = m[n:]
		}
	})
	for _, n := range names {
		must(b, os.Remove(n))
	}
	return a
}

func rawWriteFile(b *testing.B, name string, size int, m []byte) {
	f := rawFile(b, name, segment.DefaultSegmentBytes)
	var written atomic.Int64
	var syncing sync.Mutex
	parallel(inFlight, len(m)/size, func(i int) {
		must(b, f.WriteVec([][]byte{m[i*size:][:size]}, int64(i)*int64(size)))
		w := written.Add(int64(size))
		if w/syncBytes != (w-int64(size))/syncBytes && syncing.TryLock() {
			must(b, f.SyncData())
			syncing.Unlock()
		}
	})
	must(b, f.SyncData())
	must(b, f.Close())
}

// benchWrite appends batches of records and compares with raw writes of rawSize.
func benchWrite(b *testing.B, size, batch, rawSize int) {
	s := benchStore(b)
	m := benchMemory(b)
	recs := benchRecords(b, m, size)
	n := len(recs) / batch
	target := segment.Target{Class: segment.Class{ID: 1}}
	raw := b.TempDir()
	pairs(b, int64(n)*int64(batch)*int64(size), func() arm {
		a := measure(func() {
			// The store has inFlight writes under way at most; others verify meanwhile.
			parallel(2*inFlight, n, func(i int) {
				_, err := s.Append(context.Background(), target, recs[i*batch:(i+1)*batch])
				must(b, err)
			})
			must(b, s.Sync(context.Background()))
		})
		for _, in := range s.Segments() {
			if in.State != segment.StateOpen {
				_, err := s.Drop(in.Sequence)
				must(b, err)
			}
		}
		return a
	}, func() arm {
		// Scaled to the bytes of the other side.
		a := rawWrite(b, raw, rawSize, m)
		scale := float64(n*batch*size) / float64(armBytes/rawSize*rawSize)
		a.seconds *= scale
		a.cpu *= scale
		return a
	})
}

func BenchmarkWrite(b *testing.B) {
	b.Run("1536k", func(b *testing.B) { benchWrite(b, 1536<<10, 1, 1536<<10) })
	b.Run("4096k", func(b *testing.B) { benchWrite(b, 4096<<10, 1, 4096<<10) })
	b.Run("192k", func(b *testing.B) { benchWrite(b, 192<<10, 20, 1<<20) })
	b.Run("192k-alone", func(b *testing.B) { benchWrite(b, 192<<10, 1, 1<<20) })
	b.Run("4k", func(b *testing.B) { benchWrite(b, 4<<10, 256, 1<<20) })
}

// benchRead reads parts in random order into memory as an arena's.
func benchRead(b *testing.B, size int) {
	s := benchStore(b)
	recs := benchRecords(b, benchMemory(b), size)
	var locs []segment.Location
	for i := 0; i < len(recs); i += 16 {
		locs = append(locs, appendAll(b, s, recs[i:min(i+16, len(recs))]...)...)
	}
	must(b, s.Seal(context.Background(), 1))
	name := filepath.Join(b.TempDir(), "raw")
	f := rawFile(b, name, int64(len(recs))*int64(size))
	for i := range recs {
		must(b, f.WriteVec([][]byte{recs[i].Data}, int64(i)*int64(size)))
	}
	must(b, f.SyncData())
	dst := make(chan []byte, 2*inFlight)
	for range 2 * inFlight {
		d := pages(size)
		clear(d)
		dst <- d
	}
	rng := rand.New(rand.NewPCG(1, 2))
	pairs(b, int64(len(recs))*int64(size), func() arm {
		order := rng.Perm(len(recs))
		return measure(func() {
			// The store has inFlight reads under way at most; others verify meanwhile.
			parallel(2*inFlight, len(order), func(i int) {
				k := order[i]
				var d part.Descriptor
				room := <-dst
				_, err := s.Read(context.Background(), locs[k], claimOf(recs[k]), &d, room)
				must(b, err)
				dst <- room
			})
		})
	}, func() arm {
		order := rng.Perm(len(recs))
		return measure(func() {
			parallel(inFlight, len(order), func(i int) {
				room := <-dst
				_, err := f.ReadVec([][]byte{room}, int64(order[i])*int64(size))
				must(b, err)
				dst <- room
			})
		})
	})
	must(b, f.Close())
}

func BenchmarkRead(b *testing.B) {
	b.Run("1536k", func(b *testing.B) { benchRead(b, 1536<<10) })
	b.Run("4096k", func(b *testing.B) { benchRead(b, 4096<<10) })
	b.Run("192k", func(b *testing.B) { benchRead(b, 192<<10) })
	b.Run("4k", func(b *testing.B) { benchRead(b, 4<<10) })
}
