package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/server/internal/daemontest"
)

// The path end to end, in both modes: stored by one session, loaded by another.
func TestStoreMatchLoad(t *testing.T) {
	for _, mode := range []string{"shared", "guarded"} {
		t.Run(mode, func(t *testing.T) {
			d := daemontest.Start(t, "HOST_MODE="+mode, "HOST_WRITE_SEGMENT_BYTES=2MiB", "HOST_WRITE_RESERVE_BYTES=8MiB")
			a := d.Connect()
			p := a.Prompt(1, 4)
			require.Zero(t, a.Match(p).Chunks)
			a.Store(p, 0, 4)
			require.EqualValues(t, 4, a.Match(p).Chunks)
			require.NoError(t, a.End())

			b := d.Connect()
			b.Check(p, 4)
			s := d.Status(b.Conn)
			require.EqualValues(t, 4, s.Host.Chunks)
			require.EqualValues(t, 8, s.Counters.LoadedParts)
			require.EqualValues(t, 8, s.Counters.StoredParts)
			require.Zero(t, s.Host.Leased)
			require.NoError(t, b.End())
		})
	}
}
