package handover

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// complaints bounds what callers can make the log say: one line of a kind in a
// second, with the number of those that were left out before it.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last time.Time
	left int
}

func (c *complaints) say(level slog.Level, text string, args ...any) {
	c.mu.Lock()
	now := c.now()
	if !c.last.IsZero() && now.Sub(c.last) < time.Second {
		c.left++
		c.mu.Unlock()
		return
	}
	left := c.left
	c.last, c.left = now, 0
	c.mu.Unlock()
	if left > 0 {
		args = append(args, "left_out", left)
	}
	c.log.Log(context.Background(), level, text, args...)
}
