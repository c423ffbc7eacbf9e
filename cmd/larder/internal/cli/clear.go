package cli

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) clearCommand() *cobra.Command {
	var fingerprint, tenant string
	var everything, yes bool
	c := &cobra.Command{
		Use:   "clear",
		Short: "Drop all chunks of a namespace, of a tenant, or everything",
		Long: `Drops the chunks at once, from memory and disks, and bumps the epoch of what was cleared, so that stores
under way do not bring old bytes back. Engines go on by recomputing. A tenant is
cleared from disks even if none of its engines has connected since larderd started,
and so is a namespace by its whole fingerprint. Asks before it does so, unless --yes
is given.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			q, what, err := a.clearRequest(c, fingerprint, tenant, everything)
			if err != nil {
				return err
			}
			if !yes {
				if err := a.confirm("Drop " + what + "?"); err != nil {
					return err
				}
			}
			var r *larderv1.ClearResponse
			err = a.admin(c.Context(), func(ctx context.Context, ad larderv1.AdminClient) (err error) {
				r, err = ad.Clear(ctx, q)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(render.Message(r), func() error {
				_, err := fmt.Fprintf(a.Out, "dropped %d chunks, %s\n", r.GetChunks(), render.Bytes(r.GetBytes()))
				return err
			})
		},
	}
	c.Flags().StringVar(&fingerprint, "namespace", "", "fingerprint of the namespace, or a prefix")
	c.Flags().StringVar(&tenant, "tenant", "", "tenant")
	c.Flags().BoolVar(&everything, "everything", false, "everything")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) clearRequest(c *cobra.Command, fingerprint, tenant string, everything bool) (*larderv1.ClearRequest, string, error) {
	given := 0
	for _, is := range []bool{fingerprint != "", tenant != "", everything} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, "", usagef("give one of --namespace, --tenant and --everything")
	}
	switch {
	case everything:
		return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}}, "everything", nil
	case tenant != "":
		return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Tenant{Tenant: tenant}}, "all chunks of tenant " + tenant, nil
	}
	known, err := a.knownNamespaces(c.Context())
	if err != nil {
		return nil, "", err
	}
	n, err := pickNamespace(known, fingerprint)
	if whole, e := hex.DecodeString(fingerprint); errors.Is(err, fault.Miss) && e == nil && len(whole) == len(namespace.Fingerprint{}) {
		return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: whole}}, fmt.Sprintf("all chunks of namespace %x on disks", whole[:8]), nil
	}
	if err != nil {
		return nil, "", err
	}
	what := fmt.Sprintf("all chunks of namespace %x, %d of them (%s) in memory", n.GetFingerprint()[:8], n.GetChunks(), render.Bytes(n.GetBytes()))
	return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: n.GetFingerprint()}}, what, nil
}

// confirm asks and takes only a clear yes.
func (a *app) confirm(question string) error {
	if _, err := fmt.Fprintf(a.Err, "%s [yes/no] ", question); err != nil {
		return err
	}
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "yes" && answer != "y" {
		return withRemedy(usagef("not confirmed, nothing was dropped"), "answer yes, or give --yes")
	}
	return nil
}
