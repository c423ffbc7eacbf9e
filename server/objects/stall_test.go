package objects

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
)

// A stream on which nothing moves is ended; its work ends when the stream
// does.
func TestStall(t *testing.T) {
	v := &Service{options: Options{Stall: time.Hour}}
	ticks := make(chan time.Time, 2)
	ticks <- time.Time{}
	ticks <- time.Time{}
	over := make(chan struct{})
	err := v.watchTicks(func(func()) error {
		<-over // as a Recv would
		return nil
	}, ticks)
	require.ErrorIs(t, err, fault.Unavailable)
	require.ErrorContains(t, err, "1h0m0s")
	close(over)
	v.Wait()
}

func TestStillness(t *testing.T) {
	s := stillness{-1}
	for _, c := range []struct {
		moved int64
		still bool
	}{{0, false}, {1, false}, {5, false}, {5, true}, {6, false}, {6, true}} {
		require.Equal(t, c.still, s.tick(c.moved), "%v", c)
	}
}

func TestWorkEndsItself(t *testing.T) {
	v := &Service{options: Options{Stall: time.Hour}}
	want := fault.New(fault.Miss, "", "its own end")
	require.Equal(t, want, v.watch(func(func()) error { return want }))
}

func TestBuffersAreBounded(t *testing.T) {
	v := &Service{options: Options{BufferBytes: 100}, buffers: semaphore.NewWeighted(100)}
	_, first, err := v.buffer(60)
	require.NoError(t, err)
	_, _, err = v.buffer(60)
	require.ErrorIs(t, err, fault.Busy)
	first()
	b, second, err := v.buffer(60)
	require.NoError(t, err)
	require.Len(t, b, 60)
	second()
}
