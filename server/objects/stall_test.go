package objects

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
)

// A stream on which nothing moves is ended, one that moves is not; the work
// ends when the stream does.
func TestStall(t *testing.T) {
	v := &Service{options: Options{Stall: time.Hour}}
	ticks := make(chan time.Time)
	steps, ended := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- v.watchTicks(func(touch func()) error {
			for range steps { // as Recv gives messages, until the stream ends
				touch()
				steps <- struct{}{}
			}
			close(ended)
			return nil
		}, ticks)
	}()
	for range 5 {
		ticks <- time.Time{}
		steps <- struct{}{}
		<-steps
	}
	ticks <- time.Time{}
	ticks <- time.Time{}
	err := <-result
	require.ErrorIs(t, err, fault.Unavailable)
	require.ErrorContains(t, err, "1h0m0s")
	close(steps)
	<-ended
	v.Wait()
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
