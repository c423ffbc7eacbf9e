package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/test/daemon"
)

const (
	// diskPrompts of coldTokens each are the working set: a twentieth of it holds
	// the slots that an engine is granted ahead and some prompts. The model's KV takes
	// diskTokenBytes a token.
	diskPrompts    = 100
	diskTokenBytes = 12 << 10
	// diskHost is the host tier's share of the working set, in percent.
	diskHost = 5
)

// disk measures a hit that comes from the nvme tier, in an engine whose host
// tier holds a twentieth of the working set: beside one from the host tier, the
// same prompt computed, and an engine without connector.
func (s *Set) disk(ctx context.Context) error {
	const name = "engine.nvme.3500"
	if s.o.Disk == "" || !s.wants(name) {
		return nil
	}
	dir, err := os.MkdirTemp(s.o.Disk, "larder-engine-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	set := int64(diskPrompts) * int64(whole(coldTokens)) * diskTokenBytes
	d, err := daemon.Start(ctx, daemon.Options{Binary: s.o.Larderd, Bytes: set * diskHost / 100, Flags: []string{
		"--nvme.path=" + dir, "--nvme.bytes=" + strconv.FormatInt(set*5/4, 10), "--nvme.write_back=always",
	}})
	if err != nil {
		return err
	}
	defer d.Close()
	mine := &Set{o: s.o, d: d, seed: s.next() + 1<<32}
	stored, err := mine.storeDisk(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ours, err := mine.start(ctx, mine.larder())
	if err != nil {
		return err
	}
	defer ours.close()
	plain, err := mine.start(ctx, nil)
	if err != nil {
		return err
	}
	defer plain.close()
	attempts, err := pairs.Measure(ctx, pairs.Plan{Pairs: s.o.Pairs, Attempts: 2, Seed: s.seed}, mine.diskArms(ours, plain, stored)...)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i, beside := range []string{"the same from the host tier", "the same engine, request with skip_load", "the same engine without connector"} {
		one := make([]pairs.Result, len(attempts))
		for k, a := range attempts {
			a.Against = a.Against[i : i+1]
			one[k] = a
		}
		row, discarded := report.From(report.Spec{Name: name + [...]string{".host", ".recompute", ".plain"}[i], Unit: "ms", Beside: beside, Memcpy: -1}, one)
		s.rows, s.discarded = append(s.rows, row), append(s.discarded, discarded...)
		_, _ = fmt.Fprintf(s.o.Progress, "%s: %.4g %s, baseline %.4g (%d attempts)\n", row.Name, row.Value, row.Unit, *row.Baseline, len(attempts))
	}
	return nil
}

// diskArms are a hit from the disk, the same prompt from the host tier, and
// computed with and without connector.
func (s *Set) diskArms(ours, plain vllm, stored []prompt) []pairs.Arm {
	at := 0
	hit := func(name string, fromDisk bool) pairs.Arm {
		return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
			if fromDisk {
				at++ // the prompt that was asked longest ago
			}
			before, err := s.diskTier(ctx)
			if err != nil {
				return pairs.Sample{}, err
			}
			if err := ours.forget(ctx); err != nil {
				return pairs.Sample{}, err
			}
			p := stored[at%len(stored)]
			ms, err := ours.first(ctx, p, whole(p.Tokens), skipStore)
			if err != nil {
				return pairs.Sample{}, err
			}
			after, err := s.diskTier(ctx)
			if read := after.GetHits() - before.GetHits(); err == nil && (read > 0) != fromDisk {
				err = fmt.Errorf("%d parts were read from the disk", read)
			}
			return pairs.Sample{Value: ms}, err
		}}
	}
	computed := func(name string, v vllm, larder map[string]any) pairs.Arm {
		return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
			if err := v.forget(ctx); err != nil {
				return pairs.Sample{}, err
			}
			ms, err := v.first(ctx, stored[at%len(stored)], 0, larder)
			return pairs.Sample{Value: ms}, err
		}}
	}
	return []pairs.Arm{hit("disk", true), hit("host", false), computed("recompute", ours, skipAll), computed("plain", plain, nil)}
}

// storeDisk computes the working set in an engine that is gone afterwards, and
// waits until the disk has it.
func (s *Set) storeDisk(ctx context.Context) (stored []prompt, err error) {
	v, err := s.start(ctx, s.larder())
	if err != nil {
		return nil, err
	}
	defer v.close()
	for i := range diskPrompts {
		p := prompt{Seed: s.next(), Tokens: coldTokens}
		if _, err := v.first(ctx, p, 0, nil); err != nil {
			return nil, err
		}
		// One after the other: the host tier holds few of them.
		if err := s.written(ctx, uint64(i+1)*uint64(coldTokens/chunkTokens)); err != nil {
			return nil, err
		}
		stored = append(stored, p)
	}
	return stored, nil
}

// written waits until the disk has so many chunks.
func (s *Set) written(ctx context.Context, chunks uint64) error {
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		t, err := s.diskTier(ctx)
		if err != nil {
			return err
		}
		if t.GetChunks() >= chunks {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("%d of %d chunks are on the disk", t.GetChunks(), chunks)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Set) diskTier(ctx context.Context) (*larderv1.TierStatus, error) {
	st, err := s.d.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range st.GetTiers() {
		if t.GetTier() == larderv1.Tier_TIER_NVME {
			return t, nil
		}
	}
	return nil, errors.New("the daemon has no nvme tier")
}
