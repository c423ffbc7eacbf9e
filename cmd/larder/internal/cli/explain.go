package cli

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) explainCommand() *cobra.Command {
	var p promptFlags
	c := &cobra.Command{
		Use:   "explain [TOKEN...]",
		Short: "Why a prompt matches only so far",
		Long: promptHelp + `

With --descriptor the namespace of an engine that misses is compared, field by
field, with those that the daemon knows.`,
		RunE: func(c *cobra.Command, list []string) error {
			q, err := a.explainRequest(c, &p, list)
			if err != nil {
				return err
			}
			var r *larderv1.ExplainResponse
			err = a.admin(c.Context(), func(ctx context.Context, ad larderv1.AdminClient) (err error) {
				r, err = ad.Explain(ctx, q)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(render.Message(r), func() error { return a.printExplain(r) })
		},
	}
	p.add(c)
	return c
}

func (a *app) explainRequest(c *cobra.Command, p *promptFlags, list []string) (*larderv1.ExplainRequest, error) {
	q := &larderv1.ExplainRequest{Tenant: p.tenant, Salt: p.salt}
	var err error
	if q.Tokens, err = a.tokens(c.Context(), p, list); err != nil {
		return nil, err
	}
	adapter, err := p.adapterDigest()
	if err != nil {
		return nil, err
	}
	if adapter != ([32]byte{}) {
		q.Adapter = adapter[:]
	}
	if p.descriptor != "" {
		q.Descriptor_, err = a.read(p.descriptor)
		return q, err
	}
	known, err := a.knownNamespaces(c.Context())
	if err != nil {
		return nil, err
	}
	n, err := pickNamespace(known, p.namespace)
	q.Fingerprint = n.GetFingerprint()
	return q, err
}

func (a *app) printExplain(r *larderv1.ExplainResponse) error {
	pairs := []string{
		"present", fmt.Sprintf("%d of %d chunks", r.GetChunksPresent(), r.GetChunksAsked()),
		"reason", r.GetReason(),
	}
	if len(r.GetFirstAbsent()) > 0 {
		pairs = append(pairs, "first absent", hex.EncodeToString(r.GetFirstAbsent()))
	}
	if cause := r.GetCause(); cause != "" {
		gone := render.Millis(r.GetAgeMs()) + " ago"
		if cause != r.GetReason() {
			gone += ", by " + cause
		}
		pairs = append(pairs, "gone", gone)
	}
	if err := render.Pairs(a.Out, pairs...); err != nil {
		return err
	}
	if r.GetText() != "" {
		if _, err := fmt.Fprintf(a.Out, "\n%s\n", r.GetText()); err != nil {
			return err
		}
	}
	if len(r.GetDifferences()) == 0 {
		return nil
	}
	var rows [][]string
	for _, d := range r.GetDifferences() {
		rows = append(rows, []string{d.GetField(), d.GetAsked(), d.GetKnown()})
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return render.Table(a.Out, []string{"FIELD", "ASKED", "KNOWN"}, rows)
}
