package session_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

// Without a pidfd (kernels before 6.5) the lifetime pipe tells the end of a
// process; before it was handed over there are no slots.
func TestLifetimePipe(t *testing.T) {
	s := defaults()
	s.identity = func(id auth.Identity) auth.Identity { id.Process = nil; return id }
	w := newWorld(t, s)
	c := w.open()
	c.Greet()
	r := c.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1))
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_INVALID, r.GetError().GetKind())
	require.Contains(t, r.GetError().GetMessage(), "hand-over")

	c.Map()
	p := c.Prompt(1, 2)
	c.Store(p, 0, 1)
	c.Credits(1)
	require.NoError(t, c.End())
	w.settled(0, 1)
	require.NotZero(t, w.arena.Stats().Quarantined)
	c.EndLifetime()
	w.settled(0, 0)
	require.Zero(t, w.arena.Stats().Quarantined)
	require.Zero(t, w.arena.Stats().Granted)
}

// With a pidfd the pipe says the same of a process that lives on, such as one
// that has closed its client.
func TestLifetimePipeOfALivingProcess(t *testing.T) { overBoth(t, testLifetimePipeOfALivingProcess) }

func testLifetimePipeOfALivingProcess(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	c := w.connect()
	c.Credits(1)
	require.NoError(t, c.End())
	w.settled(0, 1)
	require.NotZero(t, w.arena.Stats().Quarantined)
	c.EndLifetime()
	w.settled(0, 0)
	require.Zero(t, w.arena.Stats().Quarantined)
	require.Zero(t, w.arena.Stats().Granted)
}

// Every pipe that was handed over counts.
func TestEveryLifetimePipe(t *testing.T) { overBoth(t, testEveryLifetimePipe) }

func testEveryLifetimePipe(t *testing.T, lane bool) {
	s := over(lane)
	s.identity = func(id auth.Identity) auth.Identity { id.Process = nil; return id }
	w := newWorld(t, s)
	c := w.connect()
	fds, status, text := c.Ask(c.Reply.GetSessionToken())
	require.Zero(t, status, text)
	c.Credits(1)
	require.NoError(t, c.End())
	w.settled(0, 1)
	c.EndLifetime()
	for _, fd := range fds[:len(fds)-1] {
		closeFD(t, fd)
	}
	w.settled(0, 1)
	closeFD(t, fds[len(fds)-1])
	w.settled(0, 0)
}

func TestTooManyHandovers(t *testing.T) {
	w := newWorld(t, defaults())
	c := w.connect()
	for {
		fds, status, text := c.Ask(c.Reply.GetSessionToken())
		for _, fd := range fds {
			closeFD(t, fd)
		}
		if status != 0 {
			require.Equal(t, uint8(fault.Busy), status)
			require.Contains(t, text, "limit 8")
			return
		}
	}
}

// A token is for the process that got it, while its session lives.
func TestTokens(t *testing.T) {
	s := defaults()
	cmd := exec.Command("sleep", "60") // another process of ours
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}()
	pid := int32(cmd.Process.Pid)
	stranger := false
	s.identity = func(id auth.Identity) auth.Identity {
		if stranger {
			id.PID = pid
		}
		return id
	}
	w := newWorld(t, s)
	refused := func(c *rawtest.Client, token []byte) {
		t.Helper()
		fds, status, text := c.Ask(token)
		require.Empty(t, fds)
		require.Equal(t, uint8(fault.Denied), status)
		require.Contains(t, text, "no open session of this process")
	}
	c := w.open()
	c.Greet()
	wrong := append([]byte(nil), c.Reply.GetSessionToken()...)
	wrong[31] ^= 1
	refused(c, wrong)

	stranger = true
	d := w.open()
	d.Greet()
	stranger = false
	refused(d, d.Reply.GetSessionToken()) // our pid asks for the other's

	id := auth.Identity{Local: true, UID: 0, PID: int32(0)}
	own := auth.Identity{Local: true, UID: uint32(uid()), PID: 12345}
	_, err := w.sessions.Redeem(c.Reply.GetSessionToken(), own)
	require.NoError(t, err, "another process of the user may call Objects")
	id.UID = uint32(uid()) + 1
	_, err = w.sessions.Redeem(c.Reply.GetSessionToken(), id)
	require.ErrorIs(t, err, fault.Denied)
	_, err = w.sessions.Redeem(nil, own)
	require.ErrorIs(t, err, fault.Denied)

	// A scheduler has no slots, so no descriptors.
	sch := w.open()
	sch.Greet(func(h *larderv1.Hello) { h.Role = larderv1.Role_ROLE_SCHEDULER })
	_, status, text := sch.Ask(sch.Reply.GetSessionToken())
	require.Equal(t, uint8(fault.Invalid), status, text)

	require.NoError(t, c.End())
	w.settled(2, 0)
	refused(c, c.Reply.GetSessionToken())
}

// An instance's id reaches only its own user's holds, and ended sessions only
// those of the same process.
func TestOtherUsers(t *testing.T) {
	s := defaults()
	other := uint32(0)
	s.auth.UIDs = []uint32{4711}
	s.identity = func(id auth.Identity) auth.Identity {
		if other != 0 {
			id.UID, id.Process = other, nil
		}
		return id
	}
	w := newWorld(t, s)
	a := w.connect()
	p := a.Prompt(1, 1)
	a.Store(p, 0, 1)
	m := a.Match(p)
	a.Credits(1)

	other = 4711
	b := w.open()
	b.Greet()
	require.NotNil(t, b.Reply)
	r := b.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_RenewHold{RenewHold: &larderv1.RenewHold{HoldId: m.GetHoldId()}}})
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_MISS, r.GetError().GetKind())

	require.NoError(t, a.End())
	w.settled(1, 1)
	c := w.open()
	c.Greet(func(h *larderv1.Hello) { h.EndedSessions = [][]byte{a.Reply.GetSessionToken(), {1, 2, 3}} })
	require.NotNil(t, c.Reply)
	w.settled(2, 1)
}

func TestTenants(t *testing.T) {
	s := defaults()
	s.auth.TenantRules = []string{uidRule("a", "b")}
	w := newWorld(t, s)
	c := w.open()
	r := c.Greet(func(h *larderv1.Hello) { h.Tenant = "c" })
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_DENIED, r.GetError().GetKind())
	require.Equal(t, "c", r.GetError().GetValue())
	a := w.connect()
	named := w.connect(func(h *larderv1.Hello) { h.Tenant = "a" })
	b := w.connect(func(h *larderv1.Hello) { h.Tenant = "b" })
	require.Equal(t, a.Reply.GetTenantKey(), named.Reply.GetTenantKey())
	require.NotEqual(t, a.Reply.GetTenantKey(), b.Reply.GetTenantKey())
}

// Two users of two tenants are no trust domain: neither gets the memory that the
// other's bytes lie in, in either mode. Users of one tenant do.
func TestTrustDomain(t *testing.T) {
	for _, mode := range []arena.Mode{arena.Shared, arena.Guarded} {
		for _, apart := range []bool{true, false} {
			s := defaults()
			s.arena.Mode = mode
			if mode == arena.Guarded {
				s.arena.WriteSegmentBytes, s.arena.WriteReserve = 1<<20, 2<<20
			}
			s.auth.UIDs = []uint32{4711, 4712}
			s.auth.TenantRules = []string{"uid:4711=a", "uid:4712=a"}
			if apart {
				s.auth.TenantRules[1] = "uid:4712=b"
			}
			now := uint32(0)
			s.identity = func(id auth.Identity) auth.Identity {
				id.UID = now
				return id
			}
			w := newWorld(t, s)
			for _, now = range s.auth.UIDs {
				c := w.open()
				c.Greet()
				require.NotNil(t, c.Reply)
				require.Equal(t, apart, c.Reply.GetArena() == nil, "uid %d", now)
				if !apart {
					continue
				}
				require.Zero(t, c.Match(c.Prompt(1, 1)).GetChunks())
				r := c.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1))
				require.Contains(t, r.GetError().GetMessage(), "use Objects")
				session, err := w.sessions.ByToken([32]byte(c.Reply.GetSessionToken()), auth.Identity{Local: true, UID: now})
				require.NoError(t, err)
				pipe, end, err := os.Pipe()
				require.NoError(t, err)
				require.NoError(t, end.Close())
				fds, _, err := session.Handover(pipe)
				require.ErrorIs(t, err, fault.Invalid)
				require.Empty(t, fds)
			}
			require.Empty(t, w.arena.Stats().Granted)
		}
	}
}

// A caller without shared memory matches, but has no slots.
func TestRemoteCaller(t *testing.T) {
	s := defaults()
	s.identity = func(auth.Identity) auth.Identity { return auth.Identity{Names: []string{"engine.example"}} }
	w := newWorld(t, s)
	c := w.open()
	c.Greet()
	require.NotNil(t, c.Reply)
	require.Nil(t, c.Reply.GetArena())
	require.Zero(t, c.Match(c.Prompt(1, 1)).GetChunks())
	r := c.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1))
	require.Contains(t, r.GetError().GetMessage(), "use Objects")
	_, status, _ := c.Ask(c.Reply.GetSessionToken())
	require.Equal(t, uint8(fault.Denied), status)
	_, err := w.sessions.Redeem(c.Reply.GetSessionToken(), auth.Identity{Names: []string{"engine.example"}})
	require.NoError(t, err)
	_, err = w.sessions.Redeem(c.Reply.GetSessionToken(), auth.Identity{Names: []string{"other"}})
	require.ErrorIs(t, err, fault.Denied)
}

func TestDrain(t *testing.T) { overBoth(t, testDrain) }

func testDrain(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	c := w.connect()
	p := c.Prompt(1, 2)
	c.Store(p, 0, 1)
	m := c.Match(p)
	load := c.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1})
	commit := c.Fill(p, 1, 2, 0, 1)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		w.sessions.Drain(ctx)
		close(drained)
	}()
	d := c.Event().GetDraining()
	require.NotZero(t, d.GetDeadlineMs())

	// No new work, but what was begun ends well.
	for _, r := range []*larderv1.SessionResponse{
		c.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1)),
		c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: p.Root[:]}}}),
		c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1}}}),
	} {
		require.Equal(t, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, r.GetError().GetKind(), "%v", r)
	}
	n := w.open()
	_, err := n.TryGreet()
	requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "stopping")
	require.Len(t, c.Commit(commit).GetCommit().GetOutcomes(), 2)
	require.True(t, c.Release(load.ID))
	require.NoError(t, c.End())
	<-drained
}

// Sessions that do nothing do not hold a drain up, credits or not.
func TestDrainEndsIdleSessions(t *testing.T) { overBoth(t, testDrainEndsIdleSessions) }

func testDrainEndsIdleSessions(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	c := w.connect()
	c.Credits(2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.sessions.Drain(ctx)
	require.NoError(t, ctx.Err())
	require.NotNil(t, c.Event().GetDraining())
	_, err := c.Stream.Recv()
	requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "stopping")
}

// Close ends sessions that stay, and what they hold stays in quarantine until
// the arena is closed.
func TestClose(t *testing.T) { overBoth(t, testClose) }

func testClose(t *testing.T, lane bool) {
	w := newWorld(t, over(lane))
	c := w.connect()
	c.Credits(1)
	q := w.connect()
	q.Credits(1)
	require.NoError(t, q.End())
	w.settled(1, 1)
	w.sessions.Close()
	_, err := c.Stream.Recv()
	requireEnd(t, err, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, "stopping")
	require.Equal(t, int64(2*rawtest.PartBytes), w.arena.Stats().Quarantined)
	w.settled(0, 0)
}

var _ session.Arena = (*slow)(nil)
