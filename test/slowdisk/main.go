// Command slowdisk is larderd whose nvme tier lies on a slow disk: every read of
// values takes so long as a file says, one after the other, in real time. It is
// for tests of what depends on a disk's speed, which no test machine has at will.
//
// It takes larderd's flags. $SLOWDISK names the file, whose content is a Go
// duration; it is read again for each read, so that a disk can become slow and
// recover. Everything else is larderd's own code.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/storage/segment"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "slowdisk:", err)
		os.Exit(1)
	}
}

func run() error {
	flags := pflag.NewFlagSet("slowdisk", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	c, err := config.Load(config.Sources{Environ: os.Environ(), Flags: flags})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, err := daemon.New(c, daemon.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "slowdisk",
		NVMeFS: &disk{FS: segment.SystemFS{}, speed: os.Getenv("SLOWDISK")},
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// disk is a file system on one slow head.
type disk struct {
	segment.FS
	speed string
	head  sync.Mutex
}

// Open implements segment.FS.
func (d *disk) Open(name string, buffered bool) (segment.File, error) {
	f, err := d.FS.Open(name, buffered)
	return d.slow(f, err)
}

// OpenReadOnly implements segment.FS.
func (d *disk) OpenReadOnly(name string) (segment.File, error) {
	f, err := d.FS.OpenReadOnly(name)
	return d.slow(f, err)
}

// Create implements segment.FS.
func (d *disk) Create(name string, buffered bool) (segment.File, error) {
	f, err := d.FS.Create(name, buffered)
	return d.slow(f, err)
}

func (d *disk) slow(f segment.File, err error) (segment.File, error) {
	if err != nil {
		return nil, err
	}
	return file{f, d}, nil
}

func (d *disk) wait() error {
	text, err := os.ReadFile(d.speed)
	if err != nil {
		return err
	}
	t, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	d.head.Lock()
	defer d.head.Unlock()
	<-time.After(t)
	return nil
}

type file struct {
	segment.File
	disk *disk
}

// ReadVec implements segment.File.
func (f file) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	if err := f.disk.wait(); err != nil {
		return 0, err
	}
	return f.File.ReadVec(bufs, offset)
}
