package cli

import (
	"context"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "The daemon's configuration and where each value comes from", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			var r *larderv1.ConfigResponse
			err := a.admin(c.Context(), func(ctx context.Context, ad larderv1.AdminClient) (err error) {
				r, err = ad.Config(ctx, &larderv1.ConfigRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(render.Message(r)["values"], func() error {
				var rows [][]string
				for _, v := range r.GetValues() {
					rows = append(rows, []string{v.GetKey(), v.GetValue(), v.GetSource()})
				}
				return render.Table(a.Out, []string{"KEY", "VALUE", "SOURCE"}, rows)
			})
		},
	}
}
