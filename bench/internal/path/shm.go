package path

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/test/daemon"
)

const (
	gib = 1 << 30
	// memory is what sources, destinations and the baselines' slots rotate
	// through; the arena has that for the baselines' slots (twice: Go and
	// Python) and for what is stored, and room for what slabs waste.
	memory     = gib
	arenaBytes = 4 * memory
	// armBytes is what one arm moves: 30 to 150 ms.
	armBytes = 384 << 20
)

// size is one column of the shm rows.
type size struct {
	name   string
	shape  workload.Shape
	batch  int // parts
	goBar  float64
	pyBar  float64
	pyBarT float64 // .trust
}

// Each part is a chunk of its own: nothing is saved by publishing many parts
// at once.
var sizes = []size{
	{"4096k", workload.Shape{PartBytes: 4096 << 10, Layers: 32, Parts: 1}, 16, 0.85, 0.75, 0.8},
	{"1536k", workload.Shape{PartBytes: 1536 << 10, Layers: 24, Parts: 1}, 16, 0.85, 0.75, 0.8},
	{"192k", workload.Shape{PartBytes: 192 << 10, Layers: 12, Parts: 1}, 64, 0.6, 0.6, 0.6},
}

// batches in one arm.
func (z size) batches() int { return max(armBytes/(z.shape.PartBytes*z.batch), 1) }

// parts that fill memory.
func (z size) parts() int { return memory / z.shape.PartBytes / z.batch * z.batch }

// mover stores and loads for one language.
type mover interface {
	// open connects to the daemon with memory for the size and stores
	// z.parts() chunks to be loaded.
	open(ctx context.Context, d *daemon.Daemon, z size) error
	store(ctx context.Context) (pairs.Sample, error)
	load(ctx context.Context) (pairs.Sample, error)
	// copyIn and copyOut are memcpy of one arm's bytes into slots and out of
	// them, in the mover's language.
	copyIn(ctx context.Context) (pairs.Sample, error)
	copyOut(ctx context.Context) (pairs.Sample, error)
	close()
}

// shm measures all rows shm.*, one daemon for each way to verify.
func (s *Set) shm(ctx context.Context) error {
	return errors.Join(s.shmDaemon(ctx, false), s.shmDaemon(ctx, true))
}

func (s *Set) shmDaemon(ctx context.Context, trust bool) error {
	suffix := ""
	flags := []string{"--host.prefault=true", "--session.lease=1h", "--session.hold_default=1m", "--session.max_credits=65536", "--host.granted_percent=100"}
	if trust {
		suffix = ".trust"
		flags = append(flags, "--host.verify=off")
	}
	var wanted []string
	for _, lang := range []string{"go", "py"} {
		for _, z := range sizes {
			for _, op := range []string{"store", "load"} {
				if name := fmt.Sprintf("shm.%s.%s.%s%s", op, lang, z.name, suffix); s.wants(name) {
					wanted = append(wanted, name)
				}
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	d, err := daemon.Start(ctx, daemon.Options{Binary: s.o.Larderd, Bytes: arenaBytes, Flags: flags})
	if err != nil {
		return err
	}
	defer d.Close()
	mem, err := rig.Private(memory)
	if err != nil {
		return err
	}
	defer rig.Free(mem)
	ring := rig.NewRing(mem)
	for _, z := range sizes {
		for _, lang := range []string{"go", "py"} {
			if !strings.Contains(strings.Join(wanted, " "), lang+"."+z.name) {
				continue
			}
			err = errors.Join(err, s.shmSize(ctx, d, ring, lang, z, suffix, wanted))
			if ctx.Err() != nil {
				return err
			}
		}
	}
	return err
}

func (s *Set) shmSize(ctx context.Context, d *daemon.Daemon, ring *rig.Ring, lang string, z size, suffix string, wanted []string) error {
	base, err := newBaseline(ctx, d, z, ring)
	if err != nil {
		return err
	}
	defer base.close()
	var m mover = &goMover{set: s, baseline: base, ring: ring}
	bar := z.goBar
	if lang == "py" {
		m = &pyMover{set: s}
		bar = z.pyBar
		if suffix != "" {
			bar = z.pyBarT
		}
	}
	defer m.close()
	if err := m.open(ctx, d, z); err != nil {
		return fmt.Errorf("%s.%s: %w", lang, z.name, err)
	}
	for _, op := range []string{"store", "load"} {
		name := fmt.Sprintf("shm.%s.%s.%s%s", op, lang, z.name, suffix)
		if !strings.Contains(strings.Join(wanted, " ")+" ", name+" ") {
			continue
		}
		ours, pipeline, memcpy := m.store, base.store, m.copyIn
		if op == "load" {
			ours, pipeline, memcpy = m.load, base.load, m.copyOut
		}
		spec := report.Spec{Name: name, Unit: "GiB/s", Op: ">=", Bar: bar, Memcpy: 1, Beside: "copy and CRC-64 in two threads"}
		arms := []pairs.Arm{{Name: "ours", Run: ours}, {Name: "pipeline", Run: pipeline}, {Name: "memcpy", Run: memcpy}}
		if suffix != "" {
			spec.Beside, spec.Memcpy = "memcpy", 0
			arms = []pairs.Arm{arms[0], arms[2]}
		}
		if err := s.measure(ctx, spec, arms...); err != nil {
			return err
		}
	}
	return d.Clear(ctx)
}

func (s *Set) wants(name string) bool { return strings.Contains(name, s.o.Only) }
