package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

const pinHelp = `Chunks that are not here, or find no room, are counted; the exit code is 0.

` + promptHelp

func (a *app) pinCommand() *cobra.Command {
	return a.pinning(false, &cobra.Command{
		Use:   "pin [TOKEN...]",
		Short: "Keep a prompt on the disk, whatever is evicted",
		Long: `Copies the prompt's chunks that are in memory or on the disk to where eviction
leaves them alone, within the share of the disk that pins may take
(nvme.pinned_percent). They stay until larder unpin, larder clear or a deletion,
over restarts too.

` + pinHelp,
	})
}

func (a *app) unpinCommand() *cobra.Command {
	return a.pinning(true, &cobra.Command{
		Use:   "unpin [TOKEN...]",
		Short: "Let a pinned prompt be evicted again",
		Long:  "Copies the prompt's chunks back to where eviction finds them, as the newest.\n\n" + pinHelp,
	})
}

func (a *app) pinning(unpin bool, c *cobra.Command) *cobra.Command {
	var p promptFlags
	c.RunE = func(c *cobra.Command, list []string) error {
		q, err := a.explainRequest(c, &p, list)
		if err != nil {
			return err
		}
		var r *larderv1.PinResponse
		err = a.admin(c.Context(), func(ctx context.Context, ad larderv1.AdminClient) (err error) {
			r, err = ad.Pin(ctx, &larderv1.PinRequest{
				Tokens: q.GetTokens(), Fingerprint: q.GetFingerprint(), Tenant: q.GetTenant(), Salt: q.GetSalt(), Adapter: q.GetAdapter(), Unpin: unpin,
			})
			return err
		})
		if err != nil {
			return err
		}
		return a.print(render.Message(r), func() error { return a.printPin(r, unpin) })
	}
	p.addKnown(c)
	return c
}

func (a *app) printPin(r *larderv1.PinResponse, unpin bool) error {
	what := "pinned"
	if unpin {
		what = "unpinned"
	}
	pairs := []string{
		what, fmt.Sprintf("%d of %d chunks", r.GetChunks(), r.GetChunksAsked()),
		"written", render.Bytes(r.GetBytes()),
	}
	if r.GetAbsent() > 0 {
		pairs = append(pairs, "not here", fmt.Sprintf("%d chunks", r.GetAbsent()))
	}
	if r.GetFull() > 0 {
		pairs = append(pairs, "no room", fmt.Sprintf("%d chunks: %s", r.GetFull(), r.GetText()))
	}
	return render.Pairs(a.Out, pairs...)
}
