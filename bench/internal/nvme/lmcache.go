package nvme

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

// lmcacheBytes is what one arm of LMCache and of the plain files beside it
// moves.
const lmcacheBytes = 256 << 20

// lmcache measures LMCache's adapter for files with direct I/O (fs_native), 32
// parts a task as it is asked to by default, beside plain files with records of
// the same size. It verifies nothing and syncs nothing; deleting its files is
// left out of the time.
func (s *Set) lmcache(ctx context.Context) (err error) {
	for _, z := range []size{size4096k, size192k} {
		if !s.wants("nvme.lmcache.write."+z.name, "nvme.lmcache.read."+z.name) {
			continue
		}
		if s.o.LMCache == "" {
			_, _ = fmt.Fprintf(s.o.Progress, "nvme.lmcache.*.%s: not measured: -lmcache names no interpreter\n", z.name)
			continue
		}
		err = errors.Join(err, s.lmcacheSize(ctx, z))
	}
	return err
}

func (s *Set) lmcacheSize(ctx context.Context, z size) error {
	dir, err := s.place.sub("lmcache")
	if err != nil {
		return err
	}
	py, err := rig.StartPython("", s.o.LMCache, s.o.Worker)
	if err != nil {
		return err
	}
	defer py.Close()
	var opened struct{ Parts int }
	if err := py.Do(ctx, map[string]any{"do": "open", "dir": dir, "bytes": z.bytes, "parts": lmcacheBytes / z.bytes}, &opened); err != nil {
		return err
	}
	theirs := func(command string) pairs.Arm {
		return pairs.Arm{Name: "lmcache", Run: func(ctx context.Context) (pairs.Sample, error) {
			var a struct{ Seconds, CPU float64 }
			err := py.Do(ctx, map[string]any{"do": command}, &a)
			bytes := int64(opened.Parts) * int64(z.bytes)
			return pairs.Sample{Value: float64(bytes) / gib / a.Seconds, Bytes: bytes, CPU: time.Duration(a.CPU * 1e9)}, err
		}}
	}
	src, err := newSource(z, lmcacheBytes)
	if err != nil {
		return err
	}
	defer src.close()
	if dir, err = s.place.sub("raw"); err != nil {
		return err
	}
	r := newRaw(dir, z.bytes, budget)
	defer r.close()
	spec := func(op string) report.Spec {
		return report.Spec{Name: "nvme.lmcache." + op + "." + z.name, Unit: "GiB/s",
			Beside: fmt.Sprintf("O_DIRECT, records of %d KiB, %d in flight", z.bytes>>10, rawDepth)}
	}
	n := opened.Parts
	if s.wants("nvme.lmcache.write." + z.name) {
		_, err := s.measure(ctx, spec("write"), theirs("store"), pairs.Arm{Name: "raw", Run: func(ctx context.Context) (pairs.Sample, error) {
			return timed(int64(n)*int64(z.bytes), func() error { return r.write(ctx, n, src.piece) })
		}})
		if err != nil {
			return err
		}
	}
	if !s.wants("nvme.lmcache.read." + z.name) {
		return nil
	}
	if err := py.Do(ctx, map[string]any{"do": "store"}, &struct{}{}); err != nil {
		return err
	}
	if err := r.write(ctx, n, src.piece); err != nil {
		return err
	}
	slots, err := newSlots(z.bytes)
	if err != nil {
		return err
	}
	defer slots.close()
	rng := rand.New(rand.NewPCG(s.seed, 8))
	_, err = s.measure(ctx, spec("read"), theirs("load"), pairs.Arm{Name: "raw", Run: func(ctx context.Context) (pairs.Sample, error) {
		order, first := rng.Perm(n), r.next-n
		return timed(int64(n)*int64(z.bytes), func() error {
			return parallel(ctx, readCallers, n, func(i int) error {
				return slots.with(func(slot []byte) error { return r.read(first+order[i], slot) })
			})
		})
	}})
	return err
}
