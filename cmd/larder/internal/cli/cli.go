package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

// Version is what the Go toolchain knows about this build, as larderd says it
// of its own.
func Version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}

// errInterrupted is the outcome of a command that a signal ended.
var errInterrupted = errors.New("interrupted")

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one run of the command.
type app struct {
	Streams
	remote  remote
	timeout time.Duration
	json    bool
}

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, s Streams, getenv func(string) string) int {
	a := &app{Streams: s}
	root := a.command(getenv)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		// Whatever the call made of it: nothing is wrong with the daemon.
		err = errInterrupted
	}
	if err != nil {
		a.report(err)
	}
	return exitCode(err)
}

func (a *app) command(getenv func(string) string) *cobra.Command {
	root := &cobra.Command{
		Use:   "larder",
		Short: "Look into a larderd and move files in and out of it",
		Long: `larder asks the larderd of this host, or one behind mutual TLS, what it holds
and why a prompt did or did not match, and moves files in and out of it.

` + exitTable,
		Version:       Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          args(cobra.NoArgs),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.timeout <= 0 {
				return usagef("--timeout is %s, it must be longer than 0", a.timeout)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetVersionTemplate("larder {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err.Error()} })
	f := root.PersistentFlags()
	a.remote.addFlags(f, getenv)
	f.DurationVar(&a.timeout, "timeout", 5*time.Second, "longest wait for an answer; put and get: longest silence")
	f.BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(
		a.statusCommand(), a.tiersCommand(), a.namespacesCommand(), a.inspectCommand(), a.matchCommand(), a.explainCommand(),
		a.clearCommand(), a.pinCommand(), a.unpinCommand(), a.putCommand(), a.getCommand(), a.removeCommand(), a.benchCommand(), a.codecCommand(), a.calibrateCommand(), a.doctorCommand(), a.configCommand(),
		a.storeCommand(),
	)
	return root
}

// args makes cobra's complaints about arguments usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, list []string) error {
		if err := check(c, list); err != nil {
			return &usageError{err.Error()}
		}
		return nil
	}
}

// print prints JSON if that was asked for, else calls text.
func (a *app) print(asJSON any, text func() error) error {
	if a.json {
		return render.JSON(a.Out, asJSON)
	}
	return text()
}

// reported is an error as --json prints it.
type reported struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Field   string `json:"field"`
	Value   string `json:"value"`
	Limit   string `json:"limit"`
	Remedy  string `json:"remedy"`
}

// report prints the error in one line.
func (a *app) report(err error) {
	r := reported{Kind: "error", Message: err.Error(), Remedy: remedy(err)}
	var u *usageError
	var f *fault.Error
	text := err.Error()
	switch {
	case errors.As(err, &u):
		r.Kind = "usage"
		text = "usage: " + u.text
	case errors.As(err, &f):
		r = reported{Kind: f.Kind.String(), Message: f.Message, Field: f.Field, Value: f.Value, Limit: f.Limit, Remedy: r.Remedy}
		text = f.Error()
	}
	if a.json {
		// One line, like the text.
		_ = json.NewEncoder(a.Err).Encode(map[string]reported{"error": r})
		return
	}
	if r.Remedy != "" {
		text += "; " + r.Remedy
	}
	_, _ = fmt.Fprintln(a.Err, "larder: "+strings.ReplaceAll(text, "\n", " "))
}
