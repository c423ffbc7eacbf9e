package objects

import (
	"sync/atomic"
	"time"

	"github.com/larderkv/larder/api/fault"
)

// watch runs work, a stream's handler, and returns early if it stands still:
// touch is to be called for every message. Returning ends the stream, which
// ends work, since a stream cannot be interrupted otherwise.
func (v *Service) watch(work func(touch func()) error) error {
	t := time.NewTicker(v.options.Stall)
	defer t.Stop()
	return v.watchTicks(work, t.C)
}

// watchTicks allows one tick without a touch in between: the work may have
// begun just before it.
func (v *Service) watchTicks(work func(touch func()) error, ticks <-chan time.Time) error {
	var moved atomic.Int64
	done := make(chan error, 1)
	v.streams.Go(func() { done <- work(func() { moved.Add(1) }) })
	seen := int64(-1)
	for {
		select {
		case err := <-done:
			return err
		case <-ticks:
			now := moved.Load()
			if now == seen {
				return fault.New(fault.Unavailable, "", "the stream stood still").With(nil, v.options.Stall)
			}
			seen = now
		}
	}
}
