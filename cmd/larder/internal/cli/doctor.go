package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/doctor"
)

// errFindings is the outcome of a doctor that found something that will not
// work; the findings themselves were printed.
var errFindings = errors.New("something will not work")

func (a *app) doctorCommand() *cobra.Command {
	python := ""
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What on this host keeps Larder from working well, and the remedy",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			findings := a.examine(c.Context(), doctor.Real(), python)
			err := a.print(findings, func() error {
				for _, f := range findings {
					line := fmt.Sprintf("%-4s  %s: %s", f.Level, f.Check, f.Text)
					if f.Remedy != "" {
						line += "\n      -> " + f.Remedy
					}
					if _, err := fmt.Fprintln(a.Out, line); err != nil {
						return err
					}
				}
				return nil
			})
			if err == nil && doctor.Failed(findings) {
				err = withRemedy(errFindings, "see the findings marked fail")
			}
			return err
		},
	}
	c.Flags().StringVar(&python, "python", "python3", "interpreter of the engine's environment")
	return c
}

func (a *app) examine(ctx context.Context, h doctor.Host, python string) []doctor.Finding {
	out := doctor.Kernel(h)
	out = append(out, doctor.Limits(h)...)
	out = append(out, doctor.HugePages(h)...)
	var status *larderv1.StatusResponse
	var config *larderv1.ConfigResponse
	err := a.admin(ctx, func(ctx context.Context, ad larderv1.AdminClient) (err error) {
		if status, err = ad.Status(ctx, &larderv1.StatusRequest{}); err != nil {
			return err
		}
		config, err = ad.Config(ctx, &larderv1.ConfigRequest{})
		return err
	})
	if a.remote.address == "" {
		out = append(out, doctor.Socket(h, "socket", a.remote.socket, os.Getuid(), config)...)
	}
	if err != nil {
		out = append(out, doctor.Finding{Check: "daemon", Level: doctor.Fail, Text: strings.ReplaceAll(err.Error(), "\n", " "), Remedy: remedy(err)})
	} else {
		out = append(out, doctor.Daemon(h, Version(), status)...)
		if a.remote.address == "" {
			out = append(out, doctor.Socket(h, "handover", a.handoverSocket(config), os.Getuid(), config)...)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return append(out, doctor.Python(ctx, h, python)...)
}

// handoverSocket is the daemon's second socket, by its own configuration.
func (a *app) handoverSocket(config *larderv1.ConfigResponse) string {
	socket := a.remote.socket
	for _, v := range config.GetValues() {
		switch v.GetKey() {
		case "listen.handover":
			if v.GetValue() != "" {
				return v.GetValue()
			}
		case "listen.socket":
			socket = v.GetValue()
		}
	}
	return socket + ".handover"
}
