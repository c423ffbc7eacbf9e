package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect KEY", Short: "One chunk by its key, and whether its bytes are sound", Args: args(cobra.ExactArgs(1)),
		Long: "KEY has 64 hex digits, as match and explain print them.",
		RunE: func(c *cobra.Command, list []string) error {
			key, err := hex.DecodeString(list[0])
			if err != nil || len(key) != 32 {
				return usagef("%q is not a chunk key of 64 hex digits", list[0])
			}
			var r *larderv1.InspectResponse
			err = a.admin(c.Context(), func(ctx context.Context, ad larderv1.AdminClient) (err error) {
				r, err = ad.Inspect(ctx, &larderv1.InspectRequest{ChunkKey: key})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(render.Message(r), func() error { return a.printChunk(r) })
		},
	}
}

func (a *app) printChunk(r *larderv1.InspectResponse) error {
	state := "complete"
	if !r.GetComplete() {
		state = "pending: invisible until its last part is committed"
	}
	err := render.Pairs(a.Out,
		"parent", hex.EncodeToString(r.GetParent()),
		"ordinal", strconv.FormatUint(uint64(r.GetOrdinal()), 10),
		"tokens", strconv.FormatUint(uint64(r.GetTokens()), 10),
		"namespace", hex.EncodeToString(r.GetFingerprint()),
		"tenant", r.GetTenant(),
		"state", state,
		"holds", strconv.FormatUint(uint64(r.GetHolds()), 10),
	)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	var rows [][]string
	for _, p := range r.GetParts() {
		var d part.Descriptor
		id, length, form := "unreadable descriptor", "", ""
		if part.Decode(&d, p.GetDescriptor_()) == nil {
			id = fmt.Sprintf("%d/%d/%d", d.ID.Group, d.ID.Span, d.ID.HeadGroup)
			length, form = render.Bytes(uint64(d.StoredLength)), formOf(&d)
		}
		slot, generation := "-", "-"
		if s := p.GetSlot(); s != nil {
			slot, generation = fmt.Sprintf("%d:%d", s.GetSegment(), s.GetOffset()), strconv.FormatUint(uint64(s.GetGeneration()), 10)
		}
		rows = append(rows, []string{
			id, tierName(p.GetTier()), length, form, slot, generation, strconv.FormatUint(uint64(p.GetLeases()), 10), p.GetVerified(),
		})
	}
	return render.Table(a.Out, []string{"PART", "TIER", "BYTES", "FORM", "SLOT", "GENERATION", "LEASES", "VERIFIED"}, rows)
}

// formOf says how a part is stored, and what its bytes have lost.
func formOf(d *part.Descriptor) string {
	form := "raw"
	if d.Coded() {
		form = fmt.Sprintf("coded %.2fx", float64(d.RawLength)/float64(d.StoredLength))
	}
	if d.Bundled() {
		form = fmt.Sprintf("bundled %.2fx", float64(d.RawLength)/float64(d.StoredLength))
	}
	if d.Quality > 0 {
		form += fmt.Sprintf(", L%d", d.Quality-1)
	}
	return form
}
