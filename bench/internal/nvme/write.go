package nvme

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

const (
	// sourceBytes is what both sides write from in turn.
	sourceBytes = 512 << 20
	// armBytes is what one arm writes or reads.
	armBytes = 512 << 20
)

// writeRow is parts of one size beside records of another.
type writeRow struct {
	z       size
	rawSize int
	callers int
	bar     float64
}

var writeRows = []writeRow{
	{size1536k, 1536 << 10, 8, 0.95},
	{size4096k, 4096 << 10, 8, 0.95},
	{size192k, 1 << 20, 64, 0.9},
}

// writes measures nvme.write.* and what they need of the processor.
func (s *Set) writes(ctx context.Context) (err error) {
	for _, w := range writeRows {
		if s.wants("nvme.write."+w.z.name, "nvme.cpu.write."+w.z.name) {
			err = errors.Join(err, s.write(ctx, w))
		}
	}
	return err
}

func (s *Set) write(ctx context.Context, w writeRow) error {
	b, err := s.bench(ctx, w.z, w.rawSize, w.callers)
	if err != nil {
		return err
	}
	defer b.close()
	// Both are full before the first arm.
	if err := b.fill(ctx, budget+armBytes); err != nil {
		return err
	}
	n, m := armBytes/w.z.bytes, armBytes/w.rawSize
	spec := report.Spec{
		Name: "nvme.write." + w.z.name, Unit: "GiB/s", Op: ">=", Bar: w.bar,
		Beside: fmt.Sprintf("O_DIRECT, records of %d KiB, %d in flight", w.rawSize>>10, rawDepth),
	}
	got, err := s.measure(ctx, spec, pairs.Arm{Name: "tier", Run: func(ctx context.Context) (pairs.Sample, error) {
		list, err := b.ours.prepare(n)
		if err != nil {
			return pairs.Sample{}, err
		}
		return timed(int64(n)*int64(w.z.bytes), func() error { return b.ours.write(ctx, list) })
	}}, pairs.Arm{Name: "raw", Run: func(ctx context.Context) (pairs.Sample, error) {
		return timed(int64(m)*int64(w.rawSize), func() error { return b.raw.write(ctx, m, b.rawPiece) })
	}})
	if err == nil {
		s.cpu("nvme.cpu.write."+w.z.name, got)
	}
	return err
}

// cpu adds the row of what the samples used.
func (s *Set) cpu(name string, samples []pairs.Sample) {
	var list []float64
	for _, x := range samples {
		list = append(list, x.CPU.Seconds()/(float64(x.Bytes)/gib))
	}
	i := pairs.Bootstrap(rand.New(rand.NewPCG(s.seed, 1)), list, 2000)
	op, bar := "<=", 0.3
	s.add(report.Row{
		Name: name, Value: pairs.Median(list), Unit: "CPU s/GiB", Low: i.Low, High: i.High, N: len(list), Op: &op, Bar: &bar,
		Beside: "the bound, user and system, index included",
	}, nil, 0)
}

// bench is both sides with their memory.
type bench struct {
	src  *source
	ours *ours
	raw  *raw
}

func (s *Set) bench(ctx context.Context, z size, rawSize, callers int) (_ *bench, err error) {
	b := &bench{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.src, err = newSource(z, sourceBytes); err != nil {
		return nil, err
	}
	dir, err := s.place.sub("store")
	if err != nil {
		return nil, err
	}
	if b.ours, err = openOurs(ctx, dir, b.src, callers); err != nil {
		return nil, err
	}
	if dir, err = s.place.sub("raw"); err != nil {
		return nil, err
	}
	b.raw = newRaw(dir, rawSize, budget)
	return b, nil
}

func (b *bench) close() {
	if b.raw != nil {
		b.raw.close()
	}
	if b.ours != nil {
		_ = b.ours.store.Close()
	}
	if b.src != nil {
		b.src.close()
	}
}

// rawPiece of record k of the plain files.
func (b *bench) rawPiece(k int) []byte {
	i := k % (len(b.src.mem) / b.raw.size) * b.raw.size
	return b.src.mem[i : i+b.raw.size]
}

// fill writes so many bytes on both sides.
func (b *bench) fill(ctx context.Context, bytes int) error {
	if err := b.ours.writeNew(ctx, bytes/b.src.z.bytes); err != nil {
		return err
	}
	return b.raw.write(ctx, bytes/b.raw.size, b.rawPiece)
}
