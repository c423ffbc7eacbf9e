package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

const pinHelp = `Chunks that are not here, or find no room, are counted. The exit code is 0 if at
least one is %[1]s, 6 if none is and some found no room, and 3 if none is here.

` + promptHelp

func (a *app) pinCommand() *cobra.Command {
	return a.pinning(false, &cobra.Command{
		Use:   "pin [TOKEN...]",
		Short: "Keep a prompt on the disk, whatever is evicted",
		Long: `Copies the prompt's chunks that are in memory or on the disk to where eviction
leaves them alone, within the share of the disk that pins may take
(nvme.pinned_percent). They stay until larder unpin, larder clear or a deletion,
over restarts too.

A pin keeps the form that the disk has: a chunk that lies there as it is, one that
is in memory only as nvme.codec writes it, which L0 to L3 do with loss. If a better
one is written later, it is pinned instead, where the share has room for both.

` + fmt.Sprintf(pinHelp, "pinned"),
	})
}

func (a *app) unpinCommand() *cobra.Command {
	return a.pinning(true, &cobra.Command{
		Use:   "unpin [TOKEN...]",
		Short: "Let a pinned prompt be evicted again",
		Long: `Copies the prompt's chunks back to where eviction finds them, as the newest. A
disk that is off keeps its pins: unpin again when it is back.

` + fmt.Sprintf(pinHelp, "unpinned"),
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
		if err := a.print(render.Message(r), func() error { return a.printPin(r, unpin) }); err != nil {
			return err
		}
		switch {
		case r.GetChunksAsked() == 0:
			return withRemedy(fault.New(fault.Miss, "", "the prompt is shorter than one chunk").With(len(q.GetTokens()), nil), "only full chunks are stored")
		case r.GetChunks() > 0:
			return nil
		case r.GetFull() > 0:
			return withRemedy(fault.New(fault.Full, "", "nothing of this prompt is %s: no chunk found room", pinnedWord(unpin)),
				"unpin or clear something, or raise nvme.pinned_percent or nvme.bytes")
		}
		return withRemedy(fault.New(fault.Miss, "", "nothing of this prompt is here"), "larder explain says why")
	}
	p.addKnown(c)
	return c
}

func pinnedWord(unpin bool) string {
	if unpin {
		return "unpinned"
	}
	return "pinned"
}

func (a *app) printPin(r *larderv1.PinResponse, unpin bool) error {
	pairs := []string{
		pinnedWord(unpin), fmt.Sprintf("%d of %d chunks", r.GetChunks(), r.GetChunksAsked()),
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
