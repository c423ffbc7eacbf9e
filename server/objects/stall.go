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

func (v *Service) watchTicks(work func(touch func()) error, ticks <-chan time.Time) error {
	var moved atomic.Int64
	done := make(chan error, 1)
	v.streams.Go(func() { done <- work(func() { moved.Add(1) }) })
	still := stillness{-1}
	for {
		select {
		case err := <-done:
			return err
		case <-ticks:
			if still.tick(moved.Load()) {
				return fault.New(fault.Unavailable, "", "the stream stood still").With(nil, v.options.Stall)
			}
		}
	}
}

// stillness finds two ticks without movement in between.
type stillness struct{ seen int64 }

func (s *stillness) tick(moved int64) bool {
	still := moved == s.seen
	s.seen = moved
	return still
}
