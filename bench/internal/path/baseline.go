package path

import (
	"context"
	"fmt"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// baseline is copy and checksum in one process. Its slots are slots of the
// same arena, granted and never committed: memory of its own would have other
// page tables and, in a virtual machine, other pages of the host under it,
// which alone changes a copy's speed by half.
type baseline struct {
	z        size
	pipeline *rig.Pipeline
	c        *client.Client
	sources  *rig.Ring
	slots    [][]byte
	at       int
	src, dst [][]byte
}

// newBaseline takes slots worth of memory; sources is what ours copies from,
// too.
func newBaseline(ctx context.Context, d *daemon.Daemon, z size, sources *rig.Ring) (_ *baseline, err error) {
	b := &baseline{z: z, sources: sources, pipeline: rig.NewPipeline()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	ns, err := workload.Namespace("baseline."+z.name, z.shape)
	if err != nil {
		return nil, err
	}
	b.c, err = rig.Connect(ctx, client.Options{Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: ns.Encode(), CallTimeout: 10 * time.Second, Prefault: true})
	if err != nil {
		return nil, err
	}
	for len(b.slots) < z.parts() {
		credits, err := b.c.Grant(ctx, uint64(z.shape.PartBytes), z.parts()-len(b.slots))
		if err != nil {
			return nil, fmt.Errorf("baseline: %d of %d slots: %w", len(b.slots), z.parts(), err)
		}
		for _, cr := range credits {
			// The view stays valid while the session lives: nobody revokes it
			// within the bench's lease.
			if err := cr.Write(func(view []byte) { b.slots = append(b.slots, view) }); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func (b *baseline) close() {
	b.pipeline.Close()
	if b.c != nil {
		_ = b.c.Close()
	}
}

// batch picks the next sources and slots.
func (b *baseline) batch() {
	b.src, b.dst = b.src[:0], b.dst[:0]
	for range b.z.batch {
		b.src = append(b.src, b.sources.Next(b.z.shape.PartBytes))
		b.dst = append(b.dst, b.slots[b.at])
		b.at = (b.at + 1) % len(b.slots)
	}
}

// arm runs f on each batch of an arm.
func (b *baseline) arm(f func()) (pairs.Sample, error) {
	return timed(b.z, nil, func() error {
		for range b.z.batches() {
			b.batch()
			f()
		}
		return nil
	})
}

func (b *baseline) store(context.Context) (pairs.Sample, error) {
	return b.arm(func() { b.pipeline.Store(b.dst, b.src) })
}

func (b *baseline) load(context.Context) (pairs.Sample, error) {
	return b.arm(func() { b.pipeline.Load(b.src, b.dst) })
}

func (b *baseline) copyIn(context.Context) (pairs.Sample, error) {
	return b.arm(func() { rig.Copy(b.dst, b.src) })
}

func (b *baseline) copyOut(context.Context) (pairs.Sample, error) {
	return b.arm(func() { rig.Copy(b.src, b.dst) })
}

// timed runs one arm and makes its sample: GiB/s, and the CPU time that this
// process and the given daemon used.
func timed(z size, d *daemon.Daemon, run func() error) (pairs.Sample, error) {
	cpu := func() time.Duration {
		if d == nil {
			return 0
		}
		return rig.CPU(0) + rig.CPU(d.PID())
	}
	used := cpu()
	began := time.Now()
	if err := run(); err != nil {
		return pairs.Sample{}, err
	}
	took := time.Since(began)
	bytes := int64(z.batches()) * int64(z.batch) * int64(z.shape.PartBytes)
	return pairs.Sample{Value: float64(bytes) / gib / took.Seconds(), Bytes: bytes, CPU: cpu() - used}, nil
}
