package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func admin(t testing.TB, r *raw) *larderv1.StatusResponse {
	s, err := larderv1.NewAdminClient(dial(t, r.config)).Status(t.Context(), &larderv1.StatusRequest{})
	require.NoError(t, err)
	return s
}

// The path end to end, in both modes: stored by one session, loaded by another.
func TestStoreMatchLoad(t *testing.T) {
	for _, mode := range []string{"shared", "guarded"} {
		t.Run(mode, func(t *testing.T) {
			c := start(t, "HOST_MODE="+mode, "HOST_WRITE_SEGMENT_BYTES=2MiB", "HOST_WRITE_RESERVE_BYTES=8MiB")
			a := connect(t, c)
			p := a.prompt(1, 4)
			require.Zero(t, a.match(p).Chunks)
			reply := a.store(p, 0, 4, 0, 1)
			require.Len(t, reply.Outcomes, 8)
			for _, o := range reply.Outcomes {
				require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, o)
			}
			require.EqualValues(t, 4, a.match(p).Chunks)
			require.NoError(t, a.end())

			b := connect(t, c)
			b.check(p, 4)
			s := admin(t, b)
			require.EqualValues(t, 4, s.Host.Chunks)
			require.EqualValues(t, 8, s.Counters.LoadedParts)
			require.EqualValues(t, 8, s.Counters.StoredParts)
			require.Zero(t, s.Host.Leased)
			require.NoError(t, b.end())
		})
	}
}
