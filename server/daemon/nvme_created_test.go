package daemon_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/daemontest"
)

// A store that is made where there was none is said once, with all that tells
// whether its disk is mounted.
func TestNVMeNewStoreIsSaid(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nvme")
	for _, created := range []bool{true, false} {
		var log bytes.Buffer
		cfg := daemontest.Configure(t, nvmeEnv(dir)...)
		d, err := daemon.New(cfg, daemon.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Notify: func(string) error { return nil }})
		require.NoError(t, err)
		d.Close()
		if !created {
			require.NotContains(t, log.String(), `level=WARN msg="there was no store`)
			continue
		}
		require.Contains(t, log.String(), `level=WARN msg="there was no store`)
		require.Regexp(t, `msg="there was no store.* path=`+path+` mount_point=/\S* device="?\d+:\d+ .*file_system=\S+`, log.String())
	}
}
