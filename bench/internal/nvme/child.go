package nvme

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/storage"
	tier "github.com/larderkv/larder/storage/nvme"
)

// ChildFlag makes a benchmark program the process that holds a store: it gets
// the folder, the first part to write and how many.
const ChildFlag = "-hold-store"

// childCallers put small parts at a time.
const childCallers = 256

// opened is what a child says when its first hit is there.
type opened struct {
	// Seconds of the open itself.
	Seconds float64 `json:"seconds"`
	// Parts it found, in Segments, of which Scanned had to be read; Rebuilt: why
	// there was no index.
	Parts    int    `json:"parts"`
	Segments int    `json:"segments"`
	Scanned  int    `json:"scanned"`
	Rebuilt  string `json:"rebuilt"`
	// Resident bytes of the process, before and after, which is said with the
	// parts written; Metadata is what the directory counts.
	Before   int64 `json:"before"`
	After    int64 `json:"after"`
	Metadata int64 `json:"metadata"`
}

// Serve opens the store, says so on out after the first hit, writes parts, says
// so too, and waits for the end of in, or to be killed.
func Serve(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("want folder, first part and number of parts, got %q", args)
	}
	first, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	before, err := resident()
	if err != nil {
		return err
	}
	began := time.Now()
	s, report, err := tier.Open(ctx, args[0], options(restartBudget))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	t, err := s.Tier(benchScope, size4k.layout())
	if err != nil {
		return err
	}
	if first > 0 {
		if err := hit(ctx, t, first-1-restartTail); err != nil {
			return err
		}
	}
	say := opened{
		Seconds: time.Since(began).Seconds(), Parts: report.Parts, Segments: report.Segments, Scanned: report.Scanned, Rebuilt: report.Rebuilt,
		Before: before, Metadata: s.Stats().Metadata,
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(say); err != nil {
		return err
	}
	// What a start leaves for the collector is not what a daemon keeps.
	debug.FreeOSMemory()
	if say.After, err = resident(); err != nil {
		return err
	}
	if err := putSmall(ctx, t, first, n); err != nil {
		return err
	}
	if err := enc.Encode(say); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// hit matches and reads one part, and compares it.
func hit(ctx context.Context, t *tier.Tier, n int) error {
	if found, _ := t.Match([]keys.Key{keyOf(n)}, 0); found != 1 {
		return fmt.Errorf("part %d is not there after the restart", n)
	}
	var d part.Descriptor
	got := make([]byte, size4k.bytes)
	if _, err := t.Get(ctx, idOf(n), &d, got); err != nil {
		return err
	}
	if at := workload.Check(got, keyOf(n), 0); at >= 0 {
		return fmt.Errorf("part %d came back with other bytes at %d", n, at)
	}
	return nil
}

// putSmall stores parts of 4 KiB, each with bytes of its own.
func putSmall(ctx context.Context, t *tier.Tier, first, n int) error {
	bufs := make(chan []byte, childCallers)
	for range childCallers {
		bufs <- make([]byte, size4k.bytes)
	}
	return parallel(ctx, childCallers, n, func(i int) error {
		b := <-bufs
		defer func() { bufs <- b }()
		workload.Fill(b, keyOf(first+i), 0)
		table, err := part.Checksums(nil, b, size4k.layers)
		if err != nil {
			return err
		}
		d, err := describe(first+i, size4k, table)
		if err != nil {
			return err
		}
		out, err := t.Put(ctx, d, b)
		if err == nil && out != storage.Published {
			err = fmt.Errorf("part %d: %v", first+i, out)
		}
		return err
	})
}

// resident anonymous and file memory of this process.
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(b)) {
		for _, name := range []string{"RssAnon:", "RssFile:"} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	return sum, nil
}

// child is a running child.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	// began is when the process was started.
	began time.Time
}

func startChild(ctx context.Context, dir string, first, n int) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, ChildFlag, dir, strconv.Itoa(first), strconv.Itoa(n))}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	c.began = time.Now()
	return c, c.cmd.Start()
}

// hear waits for what the child says next.
func (c *child) hear() (o opened, err error) {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return o, fmt.Errorf("the process that holds the store ended: %w", errors.Join(err, c.cmd.Wait()))
	}
	return o, json.Unmarshal(line, &o)
}

// kill ends it with SIGKILL.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// removeIndex deletes the index of a store.
func removeIndex(dir string) error { return os.RemoveAll(filepath.Join(dir, "index")) }
