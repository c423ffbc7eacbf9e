package process

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/workload"
)

// A client that is stopped past its deadline, and then goes on as if nothing
// had happened, changes nobody's bytes and believes none that are wrong. The
// daemon verifies nothing in half of these tests, so that it is the slots that
// are safe, not the checksums that find the damage.
var quick = []string{"--session.lease=2s", "--session.revoke_grace=1s"}

func eachVerify(t *testing.T, f func(t *testing.T, flags []string)) {
	for _, verify := range []string{"always", "off"} {
		t.Run(verify, func(t *testing.T) { f(t, append([]string{"--host.verify=" + verify}, quick...)) })
	}
}

func quarantined(s *larderv1.StatusResponse) bool {
	return s.GetCounters().GetQuarantinedSessions() > 0 && s.GetHost().GetQuarantined() > 0
}

func TestStoppedBetweenGrantAndCopy(t *testing.T) {
	eachVerify(t, func(t *testing.T, flags []string) {
		d := start(t, arenaBytes, flags...)
		other := connect(t, d)
		p := newPuppet(t, d)
		p.enterWrite(d, 4)
		p.stop()
		await(t, d, "the stopped client's slots are in quarantine", quarantined)

		// The rest of the arena is filled, several times over.
		fresh := fill(t, other, 1)
		for _, f := range fresh {
			requireLoadedInTime(t, other, f)
		}
		p.signal(syscall.SIGCONT)
		await(t, d, "it is back with a new session", func(s *larderv1.StatusResponse) bool { return len(s.GetSessions()) == 2 })
		require.Contains(t, p.leave().Error, "miss", "the late copy does not count")
		require.Equal(t, 4, p.must(order{Do: "commit", Seed: 2, N: 4}).N, "nor do its commits")
		for _, f := range fresh {
			requireLoadedInTime(t, other, f)
		}
		s := await(t, d, "the living process has said that it is done", func(s *larderv1.StatusResponse) bool {
			return s.GetHost().GetQuarantined() == 0
		})
		require.Zero(t, s.GetCounters().GetCorruptParts())
		// It goes on as a client like any other.
		require.Equal(t, 8, p.must(order{Do: "store", Seed: 3, N: 4}).N)
		requireLoadedInTime(t, other, workload.NewPrompt(3, 4))
	})
}

func TestStoppedBetweenLeaseAndCopy(t *testing.T) {
	eachVerify(t, func(t *testing.T, flags []string) {
		d := start(t, arenaBytes, flags...)
		other := connect(t, d)
		store(t, other, workload.NewPrompt(1, 8))
		p := newPuppet(t, d)
		p.enter(order{Do: "read", Seed: 1, N: 8})
		p.stop()
		await(t, d, "the stopped client's slots are in quarantine", quarantined)
		fresh := fill(t, other, 2)
		p.signal(syscall.SIGCONT)
		a := p.leave()
		require.Equal(t, 16, a.N)
		require.False(t, a.Confirmed, "what was copied late does not count")
		require.Zero(t, a.Wrong, "and yet nobody has written there")
		for _, f := range fresh {
			requireLoadedInTime(t, other, f)
		}
		await(t, d, "the living process has said that it is done", func(s *larderv1.StatusResponse) bool {
			return s.GetHost().GetQuarantined() == 0 && s.GetHost().GetLeased() == 0
		})
		store(t, other, workload.NewPrompt(3, 8))
		a = p.must(order{Do: "load", Seed: 3, N: 8})
		require.Equal(t, 16, a.N, "it goes on as a client like any other")
		require.Zero(t, a.Wrong)
	})
}

// Stopped for less than the grace: the revoke is answered when the section
// ends, and the session lives on.
func TestStoppedWithinTheGrace(t *testing.T) {
	d := start(t, arenaBytes, "--session.lease=2s", "--session.revoke_grace=1m")
	p := newPuppet(t, d)
	before := p.enterWrite(d, 2)
	p.stop()
	await(t, d, "the grant is revoked", func(s *larderv1.StatusResponse) bool { return s.GetCounters().GetRevokes() > before })
	p.signal(syscall.SIGCONT)
	p.leave() // a miss if the revoke was read by then
	require.Equal(t, 2, p.must(order{Do: "commit", Seed: 9, N: 2}).N, "the daemon rejects what comes late")
	s := await(t, d, "the revoke is answered", func(s *larderv1.StatusResponse) bool { return s.GetHost().GetGranted() == 0 })
	require.Zero(t, s.GetCounters().GetQuarantinedSessions())
	require.Len(t, s.GetSessions(), 1)
	require.Equal(t, 4, p.must(order{Do: "store", Seed: 1, N: 2}).N)
	requireLoadedInTime(t, connect(t, d), workload.NewPrompt(1, 2))
}
