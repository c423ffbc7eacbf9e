package process

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/bench/workload"
)

// Users of different tenants get no memory in which the other's bytes lie, in
// either mode; through streams they store and load as usual, and neither sees
// what the other stored.
func TestTenantsOfDifferentUsers(t *testing.T) {
	for _, mode := range []string{"shared", "guarded"} {
		t.Run(mode, func(t *testing.T) {
			d := start(t, 4*arenaBytes, "--host.mode="+mode, "--host.write_segment_bytes=1MiB",
				"--auth.uids=61001;61002", "--auth.tenants=uid:61001=a;uid:61002=b")
			require.Contains(t, d.Log(), "uid 61001 may act for a, uid 61002 for b")
			own := connect(t, d)
			require.True(t, own.SharedMemory())
			if os.Getuid() != 0 {
				return // only root can become two users; the sessions' own test has two everywhere
			}
			require.NoError(t, os.Chmod(filepath.Dir(d.Socket), 0o711))
			a, b := as(t, d.Socket, 61001), as(t, d.Socket, 61002)
			require.Equal(t, 8, a.must(order{Do: "store", Seed: 1, N: 4}).N)
			require.Zero(t, b.must(order{Do: "load", Seed: 1, N: 4}).N)
			require.Equal(t, 6, b.must(order{Do: "store", Seed: 1, N: 3}).N)
			for _, c := range []struct {
				puppet *strings
				parts  int
			}{{a, 8}, {b, 6}} {
				got := c.puppet.must(order{Do: "load", Seed: 1, N: 4})
				require.Equal(t, c.parts, got.N)
				require.Zero(t, got.Wrong)
			}
			got, err := load(t.Context(), own, workload.NewPrompt(1, 4))
			require.NoError(t, err)
			require.Zero(t, got.matched)
		})
	}
}

// Users of the same tenant are one trust domain.
func TestTenantOfSeveralUsers(t *testing.T) {
	d := start(t, arenaBytes, "--auth.uids=61001;61002", "--auth.tenants=uid:61001=a;uid:61002=a")
	require.NotContains(t, d.Log(), "auth.tenants")
	p := workload.NewPrompt(1, 4)
	own := connect(t, d)
	store(t, own, p)
	requireLoaded(t, own, p)
	if os.Getuid() != 0 {
		return
	}
	require.NoError(t, os.Chmod(filepath.Dir(d.Socket), 0o711))
	for _, uid := range []int{61001, 61002} {
		s := barePuppet(t)
		s.must(order{Do: "become", N: uid})
		require.True(t, s.must(order{Do: "connect", Socket: d.Socket}).Shared)
		got := s.must(order{Do: "load", Seed: 1, N: 4})
		require.Equal(t, 8, got.N, "our own user acts for their tenant")
		require.Zero(t, got.Wrong)
	}
}

// as is a puppet of another user, who gets no shared memory.
func as(t *testing.T, socket string, uid int) *strings {
	t.Helper()
	s := barePuppet(t)
	s.must(order{Do: "become", N: uid})
	require.False(t, s.must(order{Do: "connect", Socket: socket}).Shared)
	return s
}
