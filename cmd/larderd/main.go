// Command larderd is the Larder daemon of one host.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "larderd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file string
	var show, example bool
	cmd := &cobra.Command{
		Use:   "larderd",
		Short: "Keeps the KV cache of LLM engines outside the GPU",
		Long: "larderd serves one host's KV cache to its engines. Options come from --config, from the\n" +
			"environment (host.bytes is LARDER_HOST_BYTES) and from flags, the later over the earlier.\n" +
			"In flags and variables, lists have ';' between their entries.",
		Version:       version(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&file, "config", "", "YAML file [LARDER_CONFIG]")
	flags.BoolVar(&show, "print-config", false, "print every option with its value and source, secrets masked, and exit")
	flags.BoolVar(&example, "print-example", false, "print a configuration file that explains every option, and exit")
	config.AddFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if example {
			return config.Example(cmd.OutOrStdout())
		}
		c, err := config.Load(config.Sources{File: file, Environ: os.Environ(), Flags: flags})
		if err != nil {
			return err
		}
		if show {
			return c.Print(cmd.OutOrStdout())
		}
		return serve(cmd, c)
	}
	return cmd
}

func serve(cmd *cobra.Command, c *config.Loaded) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, err := daemon.New(c, daemon.Options{Logger: logger(c.Log), Version: version()})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

func logger(l config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		panic(err) // the configuration allows slog's own words only
	}
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// version is what the Go toolchain knows about this build.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
