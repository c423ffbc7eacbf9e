package client

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestBreakerOpensProbesAndGivesUp(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.BreakerFailures, o.BreakerOpen = 3, time.Hour })
	f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool { return m.GetMatch() != nil })
	match := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := c.Match(ctx, [32]byte{}, nil, MatchOptions{})
		return err
	}
	const short = 5 * time.Millisecond
	for range 3 {
		require.ErrorIs(t, match(short), fault.Unavailable)
	}
	require.False(t, c.Ready())
	require.ErrorContains(t, match(patience), "circuit breaker")
	require.EqualValues(t, 1, c.Stats().BreakerOpens)
	// The pause is over, and the probe fails too: another session.
	c.breaker.mu.Lock()
	c.breaker.until = time.Now()
	c.breaker.mu.Unlock()
	require.NotContains(t, match(short).Error(), "circuit breaker")
	require.EqualValues(t, 2, c.Stats().BreakerOpens)
	f.setBefore(nil)
	require.Eventually(t, func() bool { return c.Generation() == 2 && c.Ready() }, patience, time.Millisecond)
	require.NoError(t, match(patience))
}

// A plain no from the daemon says nothing against its health.
func TestBreakerIgnoresAnswers(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.BreakerFailures = 1 })
	for range 5 {
		l, err := c.Load(t.Context(), LoadRequest{Hold: 99, Chunks: 1})
		require.NoError(t, err)
		_, err = l.Next(t.Context())
		require.ErrorIs(t, err, fault.Miss)
		_, err = l.Release(t.Context())
		require.NoError(t, err)
	}
	require.True(t, c.Ready())
}
