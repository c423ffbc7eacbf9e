package path

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

// Options of one run.
type Options struct {
	// Larderd is the daemon's binary.
	Larderd string
	// Python is the interpreter of the worker, which must import grpc, numpy
	// and google.protobuf; Worker is the worker's script and Package the folder
	// of the package larder.
	Python, Worker, Package string
	// Mooncake is an interpreter with Mooncake Store; empty leaves its rows
	// out.
	Mooncake string
	// Pairs of each row.
	Pairs int
	// Repeat is how long rows whose control is off are measured again; later
	// ones get one attempt.
	Repeat time.Duration
	// Only rows whose name contains it; empty = all.
	Only string
	// Progress gets a line for each row.
	Progress io.Writer
}

// Set is one run.
type Set struct {
	o         Options
	rows      []report.Row
	discarded []report.Row
	seed      uint64
	began     time.Time
}

// Run measures all rows. What fails is left out and is the error; the other
// rows are measured and returned.
func Run(ctx context.Context, o Options) (rows, discarded []report.Row, err error) {
	s := &Set{o: o, seed: uint64(time.Now().UnixNano()), began: time.Now()}
	for _, group := range []func(context.Context) error{s.shm, s.mooncake, s.match, s.python, s.memory} {
		err = errors.Join(err, group(ctx))
		if ctx.Err() != nil {
			break
		}
	}
	return s.rows, s.discarded, err
}

// measure adds the row of a spec.
func (s *Set) measure(ctx context.Context, spec report.Spec, arms ...pairs.Arm) error {
	began := time.Now()
	plan := pairs.Plan{Pairs: s.o.Pairs, Seed: s.seed}
	if began.Sub(s.began) > s.o.Repeat {
		plan.Attempts = 1
	}
	attempts, err := pairs.Measure(ctx, plan, arms...)
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Name, err)
	}
	row, discarded := report.From(spec, attempts)
	s.add(row, discarded, time.Since(began))
	return nil
}

func (s *Set) add(row report.Row, discarded []report.Row, took time.Duration) {
	s.rows = append(s.rows, row)
	s.discarded = append(s.discarded, discarded...)
	ratio := ""
	if row.Ratio != nil {
		ratio = fmt.Sprintf(", ratio %.3f", *row.Ratio)
	}
	_, _ = fmt.Fprintf(s.o.Progress, "%s: %.4g %s%s (%s, %d attempts, %.1f s)\n", row.Name, row.Value, row.Unit, ratio, row.Verdict(), len(discarded)+1, took.Seconds())
}

// next is a number that no other prompt of this run has.
func (s *Set) next() uint64 {
	s.seed++
	return s.seed
}
