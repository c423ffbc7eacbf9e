package handover

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestComplaintsAreBounded(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(1, 0)
	c := complaints{log: slog.New(slog.NewTextHandler(&b, nil)), now: func() time.Time { return now }}
	for range 1000 {
		c.say(slog.LevelWarn, "refused", "caller", "x")
	}
	require.Equal(t, 1, strings.Count(b.String(), "\n"))
	require.NotContains(t, b.String(), "left_out")
	now = now.Add(time.Second)
	c.say(slog.LevelWarn, "refused")
	require.Equal(t, 2, strings.Count(b.String(), "\n"))
	require.Contains(t, b.String(), "left_out=999")
}
