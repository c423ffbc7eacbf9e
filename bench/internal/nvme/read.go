package nvme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

const (
	// readBytes lie on the disk on both sides.
	readBytes = 1 << 30
	// slotBytes is what destinations rotate through.
	slotBytes = 256 << 20
	// readCallers read at a time, on both sides.
	readCallers = 4
)

// reads measures nvme.read.*.
func (s *Set) reads(ctx context.Context) (err error) {
	for _, z := range []size{size1536k, size4096k} {
		if s.wants("nvme.read."+z.name, "nvme.cpu.read."+z.name) {
			err = errors.Join(err, s.read(ctx, z))
		}
	}
	return err
}

func (s *Set) read(ctx context.Context, z size) error {
	b, err := s.bench(ctx, z, z.bytes, 8)
	if err != nil {
		return err
	}
	defer b.close()
	slots, err := newSlots(z.bytes)
	if err != nil {
		return err
	}
	defer slots.close()
	if err := b.fill(ctx, readBytes); err != nil {
		return err
	}
	there, n := readBytes/z.bytes, armBytes/z.bytes
	rng := rand.New(rand.NewPCG(s.seed, 2))
	arm := func(name string, read func(k int, slot []byte) error) pairs.Arm {
		return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
			order := rng.Perm(there)[:n]
			return timed(int64(n)*int64(z.bytes), func() error {
				return parallel(ctx, readCallers, n, func(i int) error {
					return slots.with(func(slot []byte) error { return read(order[i], slot) })
				})
			})
		}}
	}
	spec := report.Spec{
		Name: "nvme.read." + z.name, Unit: "GiB/s", Op: ">=", Bar: 0.95,
		Beside: fmt.Sprintf("O_DIRECT, random, records of %d KiB, %d in flight", z.bytes>>10, readCallers),
	}
	got, err := s.measure(ctx, spec, arm("tier", func(k int, slot []byte) error {
		var d part.Descriptor
		return b.ours.read(ctx, k, &d, slot)
	}), arm("raw", b.raw.read))
	if err != nil {
		return err
	}
	s.cpu("nvme.cpu.read."+z.name, got)
	return b.check(ctx, there-1, slots)
}

// check compares one part with what was written: a benchmark of wrong bytes is
// none.
func (b *bench) check(ctx context.Context, k int, slots *slots) error {
	return slots.with(func(slot []byte) error {
		var d part.Descriptor
		if err := b.ours.read(ctx, k, &d, slot); err != nil {
			return err
		}
		if !bytes.Equal(slot, b.src.piece(k)) {
			return fmt.Errorf("part %d came back with other bytes", k)
		}
		return nil
	})
}

// slots are destinations, mapped like an arena's.
type slots struct {
	mem  []byte
	free chan []byte
}

func newSlots(size int) (*slots, error) {
	mem, err := rig.Shared(slotBytes)
	if err != nil {
		return nil, err
	}
	s := &slots{mem, make(chan []byte, slotBytes/size)}
	for range cap(s.free) {
		s.free <- mem[:size:size]
		mem = mem[size:]
	}
	return s, nil
}

func (s *slots) close() { rig.Free(s.mem) }

// with lends a slot.
func (s *slots) with(f func([]byte) error) error {
	slot := <-s.free
	defer func() { s.free <- slot }()
	return f(slot)
}
