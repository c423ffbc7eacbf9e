// Command larder-bench measures Larder beside baselines of the same run and
// writes the rows as JSON. See bench/RESULTS.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/larderkv/larder/bench/internal/path"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == rig.EchoFlag {
		if err := rig.ServeEcho(ctx, os.Args[2]); err != nil {
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
	set := flag.String("set", "path", "what to measure: path")
	out := flag.String("out", "", "file for the rows; required")
	full := flag.Bool("full", false, "more pairs: longer, tighter intervals")
	only := flag.String("only", "", "only rows whose name contains this")
	root := flag.String("root", ".", "the repository")
	larderd := flag.String("larderd", "", "the daemon under test; default bin/larderd of the repository")
	python := flag.String("python", "", "interpreter with grpcio, numpy and protobuf; default that of the repository's test environment, else python3")
	profile := flag.String("cpuprofile", "", "file for a CPU profile of this process: the Go client and the baselines")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 || *set != "path" {
		flag.Usage()
		return fmt.Errorf("want -out FILE and -set path, got -set %s -out %q %v", *set, *out, flag.Args())
	}
	o := path.Options{
		Larderd: *larderd, Python: *python, Only: *only, Pairs: 16, Progress: os.Stderr,
		Worker: filepath.Join(*root, "bench", "py", "worker.py"), Package: filepath.Join(*root, "connector", "python", "src"),
	}
	if *full {
		o.Pairs = 60
	}
	if o.Larderd == "" {
		o.Larderd = filepath.Join(*root, "bin", "larderd")
	}
	if o.Python == "" {
		o.Python = filepath.Join(*root, ".cache", "pyenv", "bin", "python")
		if _, err := os.Stat(o.Python); err != nil {
			o.Python = "python3"
		}
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
	rows, discarded, err := path.Run(ctx, o)
	if terr := report.Table(os.Stdout, rows); err == nil {
		err = terr
	}
	if werr := report.Write(*out, rows, discarded); err == nil {
		err = werr
	}
	return err
}
