// Command larder-bench measures Larder beside baselines of the same run and
// writes the rows as JSON. See bench/RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/larderkv/larder/bench/internal/engine"
	"github.com/larderkv/larder/bench/internal/entropy"
	"github.com/larderkv/larder/bench/internal/nvme"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/path"
	"github.com/larderkv/larder/bench/internal/quality"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/internal/slowlink"
	"github.com/larderkv/larder/bench/internal/speed"
)

// sets that can be measured.
const sets = "path, engine, nvme, codec-entropy, codec-speed, codec-quality, deadline"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == rig.EchoFlag {
		if err := rig.ServeEcho(ctx, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "larder-bench:", err)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == nvme.ChildFlag {
		if err := nvme.Serve(ctx, os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "larder-bench:", err)
		}
		return
	}
	if err := run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "larder-bench:", err)
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context) error {
	set := flag.String("set", "path", "what to measure: "+sets)
	out := flag.String("out", "", "file for the rows; required")
	full := flag.Bool("full", false, "more pairs: longer, tighter intervals")
	only := flag.String("only", "", "only rows whose name contains this; not for codec-quality")
	root := flag.String("root", ".", "the repository")
	larderd := flag.String("larderd", "", "the daemon under test; default bin/larderd of the repository")
	model := flag.String("model", os.Getenv("MODEL"), "folder of the engine's model; required for engine (make bench chooses one) and codec-quality [MODEL]")
	documents := flag.String("documents", os.Getenv("DOCUMENTS"), "JSON lines with text, of 4096 tokens or more each; required for codec-quality [DOCUMENTS]")
	calibration := flag.String("calibration", os.Getenv("CALIBRATION"), "the same, other documents, which bases are computed from; required for codec-quality [CALIBRATION]")
	python := flag.String("python", "", "interpreter with grpcio, numpy and protobuf, for engine with vLLM; default those that make installs, else python3")
	mooncake := flag.String("mooncake", "", "interpreter with mooncake-transfer-engine; its rows are added to path")
	dir := flag.String("dir", "", "folder on a disk with 12 GiB to spare, for nvme and engine -full; default bench/out of the repository")
	trace := flag.String("trace", os.Getenv("TRACE"), "JSON lines with hash_ids, for nvme.restart.hits; default made requests [TRACE]")
	lmcache := flag.String("lmcache", "", "interpreter with LMCache; rows of its adapter for files are added to nvme")
	profile := flag.String("cpuprofile", "", "file for a CPU profile of this process: the Go client and the baselines")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 || !slices.Contains(strings.Split(sets, ", "), *set) {
		flag.Usage()
		return fmt.Errorf("want -out FILE and one set of "+sets+", got -set %s -out %q %v", *set, *out, flag.Args())
	}
	in := func(parts ...string) string { return filepath.Join(append([]string{*root}, parts...)...) }
	orElse := func(given, otherwise string) string {
		if given != "" {
			return given
		}
		return otherwise
	}
	daemon, sources := orElse(*larderd, in("bin", "larderd")), in("connector", "python", "src")
	count, repeat, disk := 16, 3*time.Minute, ""
	if *full {
		count, repeat, disk = 60, time.Hour, orElse(*dir, in("bench", "out"))
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	var rows, discarded []report.Row
	var err error
	switch *set {
	case "codec-entropy":
		rows, discarded, err = entropy.Rows(ctx, pairs.Plan{Pairs: count, Seed: uint64(time.Now().UnixNano())}, *only)
	case "codec-speed":
		rows, discarded, err = speed.Rows(ctx, pairs.Plan{Pairs: count, Seed: uint64(time.Now().UnixNano())}, *only)
	case "deadline":
		rows, err = slowlink.Run(ctx, slowlink.Options{Seed: 1, Only: *only, Resamples: 2000})
	case "codec-quality":
		if *model == "" || *documents == "" || *calibration == "" {
			return errors.New("codec-quality wants -model, -documents and -calibration")
		}
		rows, err = quality.Run(ctx, quality.Options{
			Larder: in("bin", "larder"), Python: orElse(*python, interpreter(in(".cache", "engine"))), Script: in("bench", "py", "codec_quality.py"),
			Model: *model, Documents: *documents, Calibration: *calibration, Progress: os.Stderr,
		})
	case "engine":
		rows, discarded, err = engine.Run(ctx, engine.Options{
			Larderd: daemon, Python: orElse(*python, interpreter(in(".cache", "engine"))), Model: *model,
			Worker: in("bench", "py", "engine_worker.py"), Package: sources, Disk: disk, Only: *only, Pairs: count, Progress: os.Stderr,
		})
	case "nvme":
		rows, discarded, err = nvme.Run(ctx, nvme.Options{
			Dir: orElse(*dir, in("bench", "out")), Larderd: daemon, Trace: *trace, LMCache: *lmcache, Worker: in("bench", "py", "lmcache_fs_worker.py"),
			Pairs: count, Only: *only, Progress: os.Stderr,
		})
	default:
		rows, discarded, err = path.Run(ctx, path.Options{
			Larderd: daemon, Python: orElse(*python, interpreter(in(".cache", "pyenv"))),
			Worker: in("bench", "py", "worker.py"), Package: sources, Mooncake: *mooncake, Only: *only, Pairs: count, Repeat: repeat, Progress: os.Stderr,
		})
	}
	if terr := report.Table(os.Stdout, rows); err == nil {
		err = terr
	}
	if werr := report.Write(*out, rows, discarded); err == nil {
		err = werr
	}
	return err
}

// interpreter is that of a Python environment, or the system's.
func interpreter(environment string) string {
	python := filepath.Join(environment, "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return "python3"
	}
	return python
}
