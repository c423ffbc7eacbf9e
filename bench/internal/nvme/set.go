package nvme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

const gib = 1 << 30

// Options of one run.
type Options struct {
	// Dir gets a folder for everything; it must be on a disk.
	Dir string
	// Larderd is the daemon's binary, for the row of hits.
	Larderd string
	// LMCache is an interpreter with LMCache, whose adapter for files is measured
	// by the script Worker; empty leaves its rows out.
	LMCache, Worker string
	// Trace is a file of requests (JSON lines with hash_ids); empty = made ones.
	Trace string
	// Pairs of each row.
	Pairs int
	// Only rows whose name contains it; empty = all.
	Only string
	// Progress gets a line for each row.
	Progress io.Writer
}

// Set is one run.
type Set struct {
	o         Options
	place     *place
	rows      []report.Row
	discarded []report.Row
	seed      uint64
}

// Run measures all rows. What fails is left out and is the error; the other
// rows are measured and returned.
func Run(ctx context.Context, o Options) (rows, discarded []report.Row, err error) {
	p, err := newPlace(o.Dir, need)
	if err != nil {
		return nil, nil, err
	}
	defer p.close()
	s := &Set{o: o, place: p, seed: uint64(time.Now().UnixNano())}
	for _, group := range []func(context.Context) error{s.writes, s.writebacks, s.reads, s.tails, s.wears, s.restart, s.hits, s.lmcache} {
		err = errors.Join(err, group(ctx))
		if ctx.Err() != nil {
			break
		}
	}
	return s.rows, s.discarded, err
}

func (s *Set) wants(names ...string) bool {
	for _, n := range names {
		if strings.Contains(n, s.o.Only) {
			return true
		}
	}
	return false
}

// measure adds the row of a spec. The first arm's samples of the attempt that
// counts are returned.
func (s *Set) measure(ctx context.Context, spec report.Spec, arms ...pairs.Arm) ([]pairs.Sample, error) {
	return s.measureTimes(ctx, 3, spec, arms...)
}

// measureTimes does so with a bound on the attempts.
func (s *Set) measureTimes(ctx context.Context, attempts int, spec report.Spec, arms ...pairs.Arm) ([]pairs.Sample, error) {
	spec.Memcpy = -1
	began := time.Now()
	var samples []pairs.Sample
	first := arms[0].Run
	arms[0].Run = func(ctx context.Context) (pairs.Sample, error) {
		x, err := first(ctx)
		samples = append(samples, x)
		return x, err
	}
	all, err := pairs.Measure(ctx, pairs.Plan{Pairs: s.o.Pairs, Attempts: attempts, Seed: s.seed}, arms...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Name, err)
	}
	row, discarded := report.From(spec, all)
	s.add(row, discarded, time.Since(began))
	return samples[len(samples)-all[len(all)-1].N:], nil
}

func (s *Set) add(row report.Row, discarded []report.Row, took time.Duration) {
	s.rows = append(s.rows, row)
	s.discarded = append(s.discarded, discarded...)
	ratio := ""
	if row.Ratio != nil {
		ratio = fmt.Sprintf(", ratio %.3f (%.3f..%.3f)", *row.Ratio, row.Low, row.High)
	}
	_, _ = fmt.Fprintf(s.o.Progress, "%s: %.4g %s%s (%s, %d attempts, %.1f s)\n", row.Name, row.Value, row.Unit, ratio, row.Verdict(), len(discarded)+1, took.Seconds())
}

// timed runs one arm that moves bytes.
func timed(bytes int64, run func() error) (pairs.Sample, error) {
	used, began := rig.CPU(0), time.Now()
	if err := run(); err != nil {
		return pairs.Sample{}, err
	}
	took := time.Since(began)
	return pairs.Sample{Value: float64(bytes) / gib / took.Seconds(), Bytes: bytes, CPU: rig.CPU(0) - used}, nil
}
