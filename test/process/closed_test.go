package process

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
)

// A client that is closed leaves nothing with the daemon, though its process lives
// on: not where its last call was cut short, and not where parts were still being
// read, once they are not.
func TestClosedClients(t *testing.T) {
	for mode, bytes := range map[string]int64{"shared": arenaBytes, "guarded": guardedBytes} {
		t.Run(mode, func(t *testing.T) {
			d := start(t, bytes, "--host.mode="+mode)
			p := workload.NewPrompt(1, 8)
			store(t, connect(t, d), p)
			nothing := func(s *larderv1.StatusResponse) bool {
				return idle(s) && len(s.GetSessions()) == 1 && s.GetCounters().GetQuarantinedSessions() == 0
			}
			cut := 0 // the others were answered first
			for i := range uint64(20) {
				c := connect(t, d)
				ctx, cancel := context.WithCancel(t.Context())
				var err error
				if i%2 == 0 {
					m, merr := c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
					require.NoError(t, merr)
					_, err = c.Fetch(ctx, m, client.FetchRequest{Chunks: m.Chunks, Dest: func(int, uint32, int) []byte { cancel(); return nil }})
				} else {
					cancel()
					_, err = c.Store(ctx, data(workload.NewPrompt(2+i, 8)))
				}
				cancel()
				if err != nil {
					cut++
				}
				require.NoError(t, c.Close())
			}
			require.Positive(t, cut)
			await(t, d, "nothing is left", nothing)

			c := connect(t, d)
			m, err := c.Match(t.Context(), p.Root, p.Keys, client.MatchOptions{})
			require.NoError(t, err)
			l, err := c.Load(t.Context(), client.LoadRequest{Hold: m.Hold, Chunks: 1})
			require.NoError(t, err)
			parts, err := l.Next(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Close())
			await(t, d, "what is being read is in quarantine", quarantined)
			for _, part := range parts {
				require.Negative(t, workload.Check(part.Bytes, p.Key(part.Chunk), part.Part))
			}
			confirmed, err := l.Release(t.Context())
			require.NoError(t, err)
			require.False(t, confirmed)
			await(t, d, "nothing is left", nothing)
		})
	}
}
