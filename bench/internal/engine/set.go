package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/test/daemon"
)

// Options of one run.
type Options struct {
	// Larderd is the daemon's binary.
	Larderd string
	// Python is the interpreter of an installed engine; where it has LMCache
	// too, its rows are measured. Worker is the worker's script and Package the
	// folder of the package larder.
	Python, Worker, Package string
	// Model is a local folder.
	Model string
	// Disk is a folder on a disk with 8 GiB to spare, for the row of the nvme
	// tier; empty leaves it out.
	Disk string
	// Pairs of each row.
	Pairs int
	// Only rows whose name contains it; empty = all.
	Only string
	// Progress gets a line for each row.
	Progress io.Writer
}

// prompts are stored and loaded in turn by the arms of a row.
const prompts = 6

// Set is one run.
type Set struct {
	o         Options
	d         *daemon.Daemon
	rows      []report.Row
	discarded []report.Row
	seed      uint64
}

// Run measures all rows. The rows so far are returned with an error, too.
func Run(ctx context.Context, o Options) (rows, discarded []report.Row, err error) {
	if _, err := os.Stat(o.Model); err != nil {
		return nil, nil, fmt.Errorf("model: %w", err)
	}
	s := &Set{o: o, seed: uint64(time.Now().UnixNano()) >> 16}
	if s.d, err = daemon.Start(ctx, daemon.Options{Binary: o.Larderd, Bytes: 2 << 30, Flags: []string{"--host.prefault=true"}}); err != nil {
		return nil, nil, err
	}
	defer s.d.Close()
	for _, group := range []func(context.Context) error{s.warm, s.cold, s.throughput, s.disk} {
		if err = group(ctx); err != nil {
			break
		}
	}
	return s.rows, s.discarded, err
}

// larder is the connector's configuration.
func (s *Set) larder() map[string]any {
	return map[string]any{
		"kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm", "kv_role": "kv_both",
		"kv_connector_extra_config": map[string]any{"socket": s.d.Socket},
	}
}

func (s *Set) wants(names ...string) bool {
	for _, n := range names {
		if strings.Contains(n, s.o.Only) {
			return true
		}
	}
	return false
}

func (s *Set) measure(ctx context.Context, spec report.Spec, arms ...pairs.Arm) error {
	if !s.wants(spec.Name) {
		return nil
	}
	spec.Memcpy = -1
	attempts, err := pairs.Measure(ctx, pairs.Plan{Pairs: s.o.Pairs, Attempts: 2, Seed: s.seed}, arms...)
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Name, err)
	}
	row, discarded := report.From(spec, attempts)
	s.rows = append(s.rows, row)
	s.discarded = append(s.discarded, discarded...)
	_, _ = fmt.Fprintf(s.o.Progress, "%s: %.4g %s (%s, %d attempts)\n", row.Name, row.Value, row.Unit, row.Verdict(), len(attempts))
	return nil
}

// next is a seed that no other prompt of this run has.
func (s *Set) next() uint64 {
	s.seed++
	return s.seed
}

// published waits until the daemon has made so many chunks visible.
func (s *Set) published(ctx context.Context, chunks uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		st, err := s.d.Status(ctx)
		if err != nil {
			return err
		}
		got := st.GetCounters().GetPublishedChunks()
		if got >= chunks {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d chunks published: %w", got, chunks, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Set) publishedNow(ctx context.Context) (uint64, error) {
	st, err := s.d.Status(ctx)
	return st.GetCounters().GetPublishedChunks(), err
}
