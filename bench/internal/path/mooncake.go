package path

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

// mooncake measures Mooncake Store's shared-memory client beside memcpy in the
// same language, in the batches of the shm rows. It verifies nothing: the rows
// to compare are shm.*.py.*.trust. Its bytes are copied by the process that
// owns the memory, on behalf of the client.
func (s *Set) mooncake(ctx context.Context) error {
	if s.o.Mooncake == "" {
		return nil
	}
	for _, z := range sizes {
		if err := s.mooncakeSize(ctx, z); err != nil {
			return fmt.Errorf("mooncake.%s: %w", z.name, err)
		}
	}
	return nil
}

func (s *Set) mooncakeSize(ctx context.Context, z size) error {
	name := func(op string) string { return fmt.Sprintf("shm.%s.mooncake.%s", op, z.name) }
	if !s.wants(name("store")) && !s.wants(name("load")) {
		return nil
	}
	worker := filepath.Join(filepath.Dir(s.o.Worker), "mooncake_worker.py")
	// It listens on every interface: a network namespace with nothing but
	// loopback keeps it from others, and others from it.
	py, err := rig.StartPython("", "unshare", "-r", "-n", s.o.Mooncake, worker)
	if err != nil {
		return err
	}
	defer py.Close()
	if err := py.Do(ctx, map[string]any{"do": "open", "part_bytes": z.shape.PartBytes, "batch": z.batch, "memory": memory}, &struct{}{}); err != nil {
		return err
	}
	var servers struct{ Pids []int }
	if err := py.Do(ctx, map[string]any{"do": "pids"}, &servers); err != nil {
		return err
	}
	run := func(command string) func(context.Context) (pairs.Sample, error) {
		return func(ctx context.Context) (pairs.Sample, error) {
			var used time.Duration
			for _, pid := range servers.Pids {
				used -= rig.CPU(pid)
			}
			var a arm
			if err := py.Do(ctx, map[string]any{"do": command, "batches": z.batches()}, &a); err != nil {
				return pairs.Sample{}, err
			}
			for _, pid := range servers.Pids {
				used += rig.CPU(pid)
			}
			bytes := int64(z.batches()*z.batch) * int64(z.shape.PartBytes)
			return pairs.Sample{Value: float64(bytes) / gib / a.Seconds, Bytes: bytes, CPU: used + time.Duration(a.CPU*1e9)}, nil
		}
	}
	for _, op := range []string{"store", "load"} {
		if !s.wants(name(op)) {
			continue
		}
		spec := report.Spec{Name: name(op), Unit: "GiB/s", Memcpy: 0, Beside: "memcpy"}
		if err := s.measure(ctx, spec, pairs.Arm{Name: "mooncake", Run: run(op)}, pairs.Arm{Name: "memcpy", Run: run("memcpy")}); err != nil {
			return err
		}
	}
	return nil
}
