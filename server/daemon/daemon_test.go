package daemon_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// running is a daemon in this process.
type running struct {
	*daemon.Daemon
	t      testing.TB
	config *config.Loaded
}

func start(t testing.TB, settings ...string) *running {
	c := configure(t, settings...)
	d, err := daemon.New(c, daemon.Options{Logger: logger(t), Version: "test", Notify: func(string) error { return nil }})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return &running{d, t, c}
}

func logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// configure makes a configuration with sockets in a directory of the test.
// settings are "HOST_BYTES=1MiB".
func configure(t testing.TB, settings ...string) *config.Loaded {
	dir := t.TempDir()
	env := []string{
		"LARDER_LISTEN_SOCKET=" + filepath.Join(dir, "s"),
		"LARDER_LISTEN_METRICS=off",
		"LARDER_STATE_DIR=" + filepath.Join(dir, "state"),
		"LARDER_HOST_BYTES=32MiB",
		"LARDER_DRAIN=0s",
	}
	for _, s := range settings {
		env = append(env, "LARDER_"+s)
	}
	c, err := config.Load(config.Sources{Environ: env})
	require.NoError(t, err)
	return c
}

func (d *running) connect(mods ...func(*larderv1.Hello)) *rawtest.Client {
	return rawtest.Connect(d.t, d.config.Listen.Socket, d.config.HandoverSocket(), mods...)
}

func (d *running) status(c *rawtest.Client) *larderv1.StatusResponse {
	s, err := larderv1.NewAdminClient(c.Conn).Status(d.t.Context(), &larderv1.StatusRequest{})
	require.NoError(d.t, err)
	return s
}

func eventually(t testing.TB, what string, ok func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in 20 s not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
