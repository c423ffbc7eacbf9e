package nvme

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/tiered"
)

// writebackWorkers is what tiered.Writer has by default.
const writebackWorkers = 2

// writebacks measures nvme.writeback.*: chunks go from an arena to the disk as
// the daemon's background writer copies them, part after part, by two workers.
// Copying out of the arena and verifying there is in it. Nothing waits for it;
// the rows have no bar and say how fast the arena can be cleaned.
func (s *Set) writebacks(ctx context.Context) (err error) {
	for _, w := range []struct {
		z     size
		parts int
		raw   int
	}{{size1536k, 2, 1536 << 10}, {size192k, 8, 1 << 20}} {
		if s.wants("nvme.writeback." + w.z.name) {
			err = errors.Join(err, s.writeback(ctx, w.z, w.parts, w.raw))
		}
	}
	return err
}

func (s *Set) writeback(ctx context.Context, z size, parts, rawSize int) error {
	b, err := s.bench(ctx, z, rawSize, 8)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.fill(ctx, budget+armBytes); err != nil {
		return err
	}
	c, err := newCopier(b, parts)
	if err != nil {
		return err
	}
	defer c.close()
	n, m := armBytes/z.bytes/parts, armBytes/rawSize
	spec := report.Spec{
		Name: "nvme.writeback." + z.name, Unit: "GiB/s",
		Beside: fmt.Sprintf("O_DIRECT, records of %d KiB, %d in flight; chunks of %d parts, %d workers as in the daemon", rawSize>>10, rawDepth, parts, writebackWorkers),
	}
	_, err = s.measure(ctx, spec, pairs.Arm{Name: "writer", Run: func(ctx context.Context) (pairs.Sample, error) {
		prompt, err := c.publish(ctx, n)
		if err != nil {
			return pairs.Sample{}, err
		}
		return timed(int64(n)*int64(parts)*int64(z.bytes), func() error { return c.copy(ctx, prompt) })
	}}, pairs.Arm{Name: "raw", Run: func(ctx context.Context) (pairs.Sample, error) {
		return timed(int64(m)*int64(rawSize), func() error { return b.raw.write(ctx, m, b.rawPiece) })
	}})
	return err
}

// copier is an arena above the tier, and the writer between them.
type copier struct {
	b      *bench
	arena  *arena.Arena
	scope  arena.Scope
	layout storage.Layout
	name   storage.Scope
	to     storage.Tier
	writer *tiered.Writer
	seed   uint64
}

func newCopier(b *bench, parts int) (_ *copier, err error) {
	c := &copier{b: b, name: storage.Scope{Namespace: [32]byte{3}, Tenant: [32]byte{4}}}
	specs := make([]arena.PartSpec, parts)
	for i := range specs {
		specs[i] = arena.PartSpec{HeadGroup: uint16(i), RawLength: uint64(b.src.z.bytes), Layers: uint32(b.src.z.layers)}
		c.layout = append(c.layout, storage.PartSpec{HeadGroup: uint16(i), RawLength: uint64(b.src.z.bytes), Layers: uint32(b.src.z.layers)})
	}
	// Room for an arm's chunks and those of the arm before.
	if c.arena, err = arena.Open(arena.Options{Budget: 3 * armBytes}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	ns, err := c.arena.Namespace(arena.NamespaceSpec{Fingerprint: c.name.Namespace, Parts: specs})
	if err != nil {
		return nil, err
	}
	tenant, err := c.arena.Tenant(c.name.Tenant)
	if err != nil {
		return nil, err
	}
	c.scope = arena.Scope{Namespace: ns, Tenant: tenant}
	if c.to, err = b.ours.store.Tier(c.name, c.layout); err != nil {
		return nil, err
	}
	c.writer = tiered.NewWriter(tiered.WriterOptions{Policy: tiered.Never, Workers: writebackWorkers})
	return c, nil
}

func (c *copier) close() {
	if c.writer != nil {
		c.writer.Close()
	}
	_ = c.arena.Close()
}

// publish puts n new chunks into the arena.
func (c *copier) publish(ctx context.Context, n int) (workload.Prompt, error) {
	c.seed++
	p := workload.NewPrompt(c.seed, n)
	for i := range n {
		for part := range c.layout {
			r := c.arena.Put(ctx, c.scope, arena.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens}, part, c.b.src.piece(i*len(c.layout)+part))
			if r.Err != nil {
				return p, fmt.Errorf("chunk %d: %v: %w", i, r.Outcome, r.Err)
			}
		}
	}
	return p, nil
}

// copy writes the chunks as the writer's workers do, and makes them durable.
func (c *copier) copy(ctx context.Context, p workload.Prompt) error {
	before := c.writer.Stats().Chunks
	err := parallel(ctx, writebackWorkers, p.Len(), func(i int) error {
		return c.writer.Write(ctx, tiered.Chunk{Scope: c.name, Key: p.Key(i), Layout: c.layout, From: c.arena.Background(c.scope), To: c.to})
	})
	if err != nil {
		return err
	}
	if got := c.writer.Stats().Chunks - before; got != uint64(p.Len()) {
		return fmt.Errorf("%d of %d chunks were written", got, p.Len())
	}
	return c.b.ours.store.Sync(ctx)
}
