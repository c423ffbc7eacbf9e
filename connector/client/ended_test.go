package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// A session that ends while a section runs keeps its memory, and its token
// goes out once the section has ended.
func TestSessionEndsDuringASection(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	token := c.Hello().GetSessionToken()
	err = credits[0].Write(func(dst []byte) {
		f.current().cancel()
		require.Eventually(t, func() bool { return c.Generation() == 2 && c.Ready() }, patience, time.Millisecond)
		copy(dst, "still mapped")
		require.Zero(t, pollPipe(t, f, 0), "the lifetime pipe is open")
	})
	require.ErrorIs(t, err, fault.Miss)
	require.NotZero(t, pollPipe(t, f, 0), "the lifetime pipe is closed")
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.hellos) == 3
	}, patience, time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.hellos[1].GetEndedSessions())
	require.Equal(t, [][]byte{token}, f.hellos[2].GetEndedSessions())
	require.EqualValues(t, 2, c.Generation(), "the session lives on")
}

// A session that ends without a section is reported with the next hello.
func TestNextHelloReportsTheLastSession(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	token := c.Hello().GetSessionToken()
	f.current().cancel()
	require.Eventually(t, func() bool { return c.Generation() == 2 }, patience, time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Equal(t, [][]byte{token}, f.hellos[1].GetEndedSessions())
}

func pollPipe(t *testing.T, f *fake, i int) int16 {
	f.mu.Lock()
	fd := f.pipes[i]
	f.mu.Unlock()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(p, 0)
	require.NoError(t, err)
	return p[0].Revents & unix.POLLHUP
}

func TestSessionEndFailsWhatWaits(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	f.setBefore(func(s *fakeSession, m *larderv1.SessionRequest) bool {
		if m.GetMatch() != nil {
			s.cancel()
			return true
		}
		return false
	})
	_, err := c.Match(t.Context(), [32]byte{}, nil, MatchOptions{})
	require.ErrorIs(t, err, fault.Unavailable)
}
