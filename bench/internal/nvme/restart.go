package nvme

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

const (
	restartParts = 1_000_000
	// restartTail parts are written after each start, so that a kill always
	// leaves segments behind that are open.
	restartTail = 5_000
	// restartLife of a process between its last write and its end: a few rounds of
	// the tier's own work.
	restartLife = 2500 * time.Millisecond
	// restartRuns of each kind.
	restartRuns   = 5
	restartBudget = 8 << 30
)

// restart measures nvme.restart.1m*: a process that holds a million parts of
// 4 KiB is killed, and another one opens the store. The time is that from the
// start of the process to its first hit, verified.
func (s *Set) restart(ctx context.Context) error {
	const name = "nvme.restart.1m"
	if !s.wants(name, name+".rebuild", name+".rss") {
		return nil
	}
	began := time.Now()
	dir, err := s.place.sub("restart")
	if err != nil {
		return err
	}
	parts := 0
	// run starts a process, lets it write and kills it.
	run := func(n int) (seconds float64, o opened, err error) {
		c, err := startChild(ctx, dir, parts, n)
		if err != nil {
			return 0, o, err
		}
		defer c.kill()
		if o, err = c.hear(); err != nil {
			return 0, o, err
		}
		seconds = time.Since(c.began).Seconds()
		if o.Parts != parts {
			return 0, o, fmt.Errorf("%s: %d of %d parts are there after a kill", name, o.Parts, parts)
		}
		trimmed, err := c.hear()
		o.After = trimmed.After
		parts += n
		select {
		case <-time.After(restartLife):
		case <-ctx.Done():
			err = ctx.Err()
		}
		return seconds, o, err
	}
	if _, _, err := run(restartParts); err != nil {
		return err
	}
	wrote := time.Since(began)
	var sound, rebuilt, memory []float64
	var last, lastRebuilt opened
	for range restartRuns {
		seconds, o, err := run(restartTail)
		if err != nil {
			return err
		}
		if o.Rebuilt != "" {
			return fmt.Errorf("%s: the index was not sound: %s", name, o.Rebuilt)
		}
		_, _ = fmt.Fprintf(s.o.Progress, "%s: %.2f s (%.2f s of them the open), %d of %d segments scanned\n", name, seconds, o.Seconds, o.Scanned, o.Segments)
		sound, last = append(sound, seconds), o
		memory = append(memory, float64(o.After-o.Before)/float64(o.Parts))
	}
	for range restartRuns {
		if err := removeIndex(dir); err != nil {
			return err
		}
		seconds, o, err := run(restartTail)
		if err != nil {
			return err
		}
		if o.Rebuilt == "" {
			return fmt.Errorf("%s: there was an index where none should be", name)
		}
		rebuilt, lastRebuilt = append(rebuilt, seconds), o
	}
	row := func(name, unit, beside string, list []float64) report.Row {
		i := pairs.Bootstrap(rand.New(rand.NewPCG(s.seed, 5)), list, 2000)
		return report.Row{Name: name, Value: pairs.Median(list), Unit: unit, Low: i.Low, High: i.High, N: len(list), Beside: beside}
	}
	first := row(name, "s", fmt.Sprintf("the bound; from the start of the process to the first hit; %d parts, %d of %d segments scanned, %.1f s to write the parts",
		last.Parts, last.Scanned, last.Segments, wrote.Seconds()), sound)
	op, bar := "<=", 1.0
	first.Op, first.Bar = &op, &bar
	s.add(first, nil, time.Since(began))
	s.add(row(name+".rebuild", "s", fmt.Sprintf("the same with the index deleted; %d parts in %d segments", lastRebuilt.Parts, lastRebuilt.Segments), rebuilt), nil, 0)
	s.add(row(name+".rss", "bytes", fmt.Sprintf("resident memory that a part takes; the directory counts %d", last.Metadata/int64(last.Parts)), memory), nil, 0)
	return nil
}
