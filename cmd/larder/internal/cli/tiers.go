package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) tiersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tiers", Short: "The places that hold parts: space, hits, writes, errors", Args: args(cobra.NoArgs),
		Long: `One line for the host tier and one for each device of the tiers below it.
READ and WRITTEN are bytes of parts since larderd started; AMPLIFIED is what the
device was given, padding, index and copies included, over WRITTEN. QUEUE counts
parts that are read or written now, or wait for it. After a start CHUNKS of a
device are those of the namespaces and tenants that engines have named since;
PARTS are all. CODEC is how chunks are written; larder namespaces says it for each
namespace. A tier that is off is left out by larderd until it is restarted. Why it
is off, or has a new store, no index or segments that cannot be read, follows the
table.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.status(c.Context())
			if err != nil {
				return err
			}
			list := make([]any, len(s.GetTiers()))
			for i, t := range s.GetTiers() {
				list[i] = render.Message(t)
			}
			return a.print(list, func() error { return a.printTiers(s.GetTiers()) })
		},
	}
}

func (a *app) printTiers(list []*larderv1.TierStatus) error {
	var rows [][]string
	for _, t := range list {
		count := func(n uint64) string { return strconv.FormatUint(n, 10) }
		read, amplified := render.Bytes(t.GetReadBytes()), "-"
		if t.GetTier() == larderv1.Tier_TIER_HOST {
			read = "-"
		} else if t.GetWrittenBytes() > 0 {
			amplified = fmt.Sprintf("%.3f", float64(t.GetDeviceBytes())/float64(t.GetWrittenBytes()))
		}
		rows = append(rows, []string{
			tierName(t.GetTier()), orDash(t.GetDevice()), t.GetState(), orDash(t.GetCodec()), render.Bytes(t.GetUsed()), render.Bytes(t.GetBudget()), render.Bytes(t.GetPinned()),
			count(t.GetChunks()), count(t.GetParts()), count(t.GetHits()), read, render.Bytes(t.GetWrittenBytes()), amplified,
			count(t.GetEvictedChunks()), count(t.GetQueue()), count(t.GetErrors()), count(t.GetCorrupt()),
		})
	}
	header := []string{"TIER", "DEVICE", "STATE", "CODEC", "USED", "BUDGET", "PINNED", "CHUNKS", "PARTS", "HITS", "READ", "WRITTEN", "AMPLIFIED", "EVICTED", "QUEUE", "ERRORS", "CORRUPT"}
	if err := render.Table(a.Out, header, rows); err != nil {
		return err
	}
	for _, t := range list {
		if t.GetWhy() == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.Out, "\n%s %s: %s\n", tierName(t.GetTier()), t.GetDevice(), t.GetWhy()); err != nil {
			return err
		}
	}
	return nil
}

// tierName is the tier's word in the vocabulary.
func tierName(t larderv1.Tier) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "TIER_"))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
