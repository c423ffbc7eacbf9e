// Command larder asks a larderd what it holds and why, and moves files in and
// out of it. See "larder help".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/larderkv/larder/cmd/larder/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Getenv)
	stop()
	os.Exit(code)
}
