// Package daemontest runs a whole larderd in a test's process.
package daemontest

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// Daemon is a whole larderd in this process.
type Daemon struct {
	*daemon.Daemon
	Config *config.Loaded
	t      testing.TB
}

// Start runs a daemon whose files lie in a directory of the test. settings are
// "HOST_BYTES=1MiB".
func Start(t testing.TB, settings ...string) *Daemon {
	c := Configure(t, settings...)
	d, err := daemon.New(c, daemon.Options{
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test", Notify: func(string) error { return nil },
	})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return &Daemon{d, c, t}
}

// Configure is the configuration that Start uses.
func Configure(t testing.TB, settings ...string) *config.Loaded {
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

// Connect opens a session and maps the arena.
func (d *Daemon) Connect(mods ...func(*larderv1.Hello)) *rawtest.Client {
	return rawtest.Connect(d.t, d.Config.Listen.Socket, d.Config.HandoverSocket(), mods...)
}

// Dial opens a connection without a session.
func (d *Daemon) Dial() *grpc.ClientConn {
	cc, err := grpc.NewClient("unix:"+d.Config.Listen.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(d.t, err)
	d.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// Status is what an operator sees.
func (d *Daemon) Status(cc grpc.ClientConnInterface) *larderv1.StatusResponse {
	s, err := larderv1.NewAdminClient(cc).Status(d.t.Context(), &larderv1.StatusRequest{})
	require.NoError(d.t, err)
	return s
}
