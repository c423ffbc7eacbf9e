package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// Tests that kill a daemon start this binary again as a child, which ends with
// its standard input. What becomes of clients that are stopped or killed, and of
// a daemon without descriptors, is tested with real processes in test/process.
const childEnv = "DAEMON_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	daemonChild()
}

type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t testing.TB, env ...string) *child {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"=1"), env...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

func (c *child) answer() string {
	require.True(c.t, c.out.Scan(), "the child has ended")
	return c.out.Text()
}

// daemonChild runs larderd's daemon until it is killed or told to end.
func daemonChild() {
	c, err := config.Load(config.Sources{Environ: os.Environ()})
	if err != nil {
		panic(err)
	}
	d, err := daemon.New(c, daemon.Options{Version: "test"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println("serving")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := d.Run(ctx); err != nil {
		panic(err)
	}
}

// daemonEnv is the configuration of a daemon in a child.
func daemonEnv(dir string) []string {
	return []string{
		"LARDER_LISTEN_SOCKET=" + filepath.Join(dir, "s"), "LARDER_LISTEN_METRICS=off", "LARDER_DRAIN=0s",
		"LARDER_STATE_DIR=" + filepath.Join(dir, "state"), "LARDER_HOST_BYTES=4MiB",
	}
}

func connectIn(t testing.TB, dir string) *rawtest.Client {
	return rawtest.Connect(t, filepath.Join(dir, "s"), filepath.Join(dir, "s.handover"))
}

// A daemon that was killed leaves its socket file; the next one replaces it
// and gives the same tenant the same key. A second one beside a living one
// refuses.
func TestDaemonKilledAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	d := startChild(t, daemonEnv(dir)...)
	require.Equal(t, "serving", d.answer())
	a := connectIn(t, dir)
	a.Store(a.Prompt(1, 2), 0, 2)

	second := startChild(t, daemonEnv(dir)...)
	require.Contains(t, second.answer(), "another daemon serves it")
	a.Check(a.Prompt(1, 2), 2)

	d.kill()
	_, err := a.Stream.Recv()
	require.Error(t, err)
	d = startChild(t, daemonEnv(dir)...)
	require.Equal(t, "serving", d.answer())
	b := connectIn(t, dir)
	require.Equal(t, a.Reply.GetTenantKey(), b.Reply.GetTenantKey())
	require.NotEqual(t, a.Reply.GetSessionToken(), b.Reply.GetSessionToken())
	require.Greater(t, b.Reply.GetEpoch(), a.Reply.GetEpoch())
	b.Check(b.Prompt(1, 2), 0)
	b.Store(b.Prompt(1, 2), 0, 2)
	b.Check(b.Prompt(1, 2), 2)

	// The end of its standard input is this child's SIGTERM.
	require.NoError(t, d.in.Close())
	require.NoError(t, d.cmd.Wait())
	require.NoFileExists(t, filepath.Join(dir, "s"))
}
