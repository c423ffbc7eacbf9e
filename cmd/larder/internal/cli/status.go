package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What the daemon does: memory, sessions, counters", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.status(c.Context())
			if err != nil {
				return err
			}
			return a.print(render.Message(s), func() error { return a.printStatus(s) })
		},
	}
}

func (a *app) status(ctx context.Context) (s *larderv1.StatusResponse, err error) {
	err = a.admin(ctx, func(ctx context.Context, ad larderv1.AdminClient) (err error) {
		s, err = ad.Status(ctx, &larderv1.StatusRequest{})
		return err
	})
	return s, err
}

func (a *app) printStatus(s *larderv1.StatusResponse) error {
	h, n := s.GetHost(), s.GetCounters()
	pairs := []string{
		"larderd", fmt.Sprintf("%s, %s for %s", s.GetVersion(), s.GetState(), render.Millis(s.GetUptimeMs())),
		"host tier", fmt.Sprintf("%s of %s used, mode %s, verify %s", render.Bytes(h.GetUsed()), render.Bytes(h.GetBudget()), h.GetMode(), h.GetVerify()),
		"", fmt.Sprintf("%d chunks, %d parts, %d chunks pending", h.GetChunks(), h.GetParts(), h.GetPendingChunks()),
		"", fmt.Sprintf("%s granted, %s leased, %s in quarantine", ofLimit(h.GetGranted(), h.GetGrantedLimit()), render.Bytes(h.GetLeased()), render.Bytes(h.GetQuarantined())),
		"", fmt.Sprintf("%s prefaulted, %s in huge pages", render.Bytes(h.GetPrefaulted()), render.Bytes(h.GetHugePages())),
	}
	for _, t := range s.GetTiers() {
		if t.GetTier() == larderv1.Tier_TIER_HOST {
			continue
		}
		line := fmt.Sprintf("%s %s, %s of %s used, %d chunks", t.GetDevice(), t.GetState(), render.Bytes(t.GetUsed()), render.Bytes(t.GetBudget()), t.GetChunks())
		if t.GetWhy() != "" {
			line += "; see larder tiers"
		}
		pairs = append(pairs, tierName(t.GetTier())+" tier", line)
	}
	err := render.Pairs(a.Out, append(pairs,
		"matches", fmt.Sprintf("%d, %d of %d chunks hit (%s)", n.GetMatchRequests(), n.GetMatchChunksHit(), n.GetMatchChunksAsked(), percent(n.GetMatchChunksHit(), n.GetMatchChunksAsked())),
		"loaded", fmt.Sprintf("%d parts, %s", n.GetLoadedParts(), render.Bytes(n.GetLoadedBytes())),
		"stored", fmt.Sprintf("%d parts, %s; %d chunks published", n.GetStoredParts(), render.Bytes(n.GetStoredBytes()), n.GetPublishedChunks()),
		"refused", fmt.Sprintf("%d duplicate, %d conflicting, %d rejected parts", n.GetDuplicateParts(), n.GetConflictParts(), n.GetRejectedParts()),
		"dropped", fmt.Sprintf("%d chunks evicted, %d never complete, %d parts corrupt", n.GetEvictedChunks(), n.GetExpiredPendingChunks(), n.GetCorruptParts()),
		"grants", fmt.Sprintf("%d requests for slots got fewer than they asked for", n.GetShortGrants()),
		"revokes", fmt.Sprintf("%d, %d sessions quarantined", n.GetRevokes(), n.GetQuarantinedSessions()),
	)...)
	if err != nil || len(s.GetSessions()) == 0 {
		return err
	}
	var rows [][]string
	for _, x := range s.GetSessions() {
		rows = append(rows, []string{
			strconv.FormatUint(x.GetSessionId(), 10), x.GetRole(), strconv.FormatUint(uint64(x.GetTensorRank()), 10), x.GetEngine(), x.GetTenant(), x.GetNamespace(),
			strconv.FormatInt(x.GetPid(), 10), strconv.FormatUint(uint64(x.GetCredits()), 10), ofLimit(x.GetCreditBytes(), x.GetCreditLimit()), strconv.FormatUint(x.GetShortGrants(), 10),
			strconv.FormatUint(uint64(x.GetLeases()), 10),
			strconv.FormatUint(uint64(x.GetHolds()), 10), yes(x.GetLane()), render.Millis(x.GetAgeMs()),
		})
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return render.Table(a.Out, []string{"SESSION", "ROLE", "RANK", "ENGINE", "TENANT", "NAMESPACE", "PID", "CREDITS", "GRANTED", "SHORT", "LEASES", "HOLDS", "LANE", "AGE"}, rows)
}

// ofLimit is bytes of what there may be at most; 0 is no limit.
func ofLimit(bytes, limit uint64) string {
	if limit == 0 {
		return render.Bytes(bytes)
	}
	return render.Bytes(bytes) + " of " + render.Bytes(limit)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
