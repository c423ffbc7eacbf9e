package nvme

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

const (
	// tailReads of one arm: their 99th percentile is its sample.
	tailReads = 200
	// tailWindow is the share of the budget, as a divisor, that is read: what
	// was written last, so that little of it is evicted on the way.
	tailWindow = 4
)

// tails measures nvme.read.p99.*: a read while others write as fast as they can
// and the oldest data goes for it, on both sides.
func (s *Set) tails(ctx context.Context) (err error) {
	for _, z := range []size{size1536k, size4096k} {
		if s.wants("nvme.read.p99." + z.name) {
			err = errors.Join(err, s.tail(ctx, z))
		}
	}
	return err
}

func (s *Set) tail(ctx context.Context, z size) error {
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
	if err := b.fill(ctx, budget+armBytes); err != nil {
		return err
	}
	arm := func(name string, w writer) pairs.Arm {
		w.seed, w.window, w.slots = s.seed, budget/tailWindow/z.bytes, slots
		return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
			ms, err := w.readWhileWriting(ctx)
			return pairs.Sample{Value: pairs.Quantile(ms, 0.99)}, err
		}}
	}
	spec := report.Spec{
		Name: "nvme.read.p99." + z.name, Unit: "ms",
		Beside: fmt.Sprintf("O_DIRECT, random reads of %d KiB, %d in flight, beside %d writes in flight", z.bytes>>10, readCallers, rawDepth),
	}
	_, err = s.measureTimes(ctx, 2, spec, arm("tier", writer{
		next:  &b.ours.next,
		write: b.ours.writeNew,
		read: func(ctx context.Context, k int, slot []byte) error {
			var d part.Descriptor
			return b.ours.read(ctx, k, &d, slot)
		},
	}), arm("raw", writer{
		next:  &b.raw.next,
		write: func(ctx context.Context, n int) error { return b.raw.write(ctx, n, b.rawPiece) },
		read:  func(_ context.Context, k int, slot []byte) error { return b.raw.read(k, slot) },
	}))
	return err
}

// writer is one side of a row of tails.
type writer struct {
	next   *int
	write  func(ctx context.Context, n int) error
	read   func(ctx context.Context, k int, slot []byte) error
	window int
	slots  *slots
	seed   uint64
}

// readWhileWriting returns the milliseconds of each read.
func (w *writer) readWhileWriting(ctx context.Context) ([]float64, error) {
	// Writes go on in pieces until the reads are done.
	const piece = 32
	var stop atomic.Bool
	var end atomic.Int64
	end.Store(int64(*w.next))
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		for !stop.Load() && writeErr == nil {
			writeErr = w.write(ctx, piece)
			end.Store(int64(*w.next))
		}
	})
	var mu sync.Mutex
	var ms []float64
	rng := rand.New(rand.NewPCG(w.seed, uint64(*w.next)))
	err := parallel(ctx, readCallers, tailReads, func(int) error {
		mu.Lock()
		k := int(end.Load()) - 1 - rng.IntN(w.window)
		mu.Unlock()
		return w.slots.with(func(slot []byte) error {
			began := time.Now()
			err := w.read(ctx, k, slot)
			if errors.Is(err, fault.Miss) || errors.Is(err, errGone) {
				return fmt.Errorf("part %d of the newest %d is gone: %w", k, w.window, err)
			}
			took := float64(time.Since(began).Nanoseconds()) / 1e6
			mu.Lock()
			ms = append(ms, took)
			mu.Unlock()
			return err
		})
	})
	stop.Store(true)
	writing.Wait()
	return ms, errors.Join(err, writeErr)
}
