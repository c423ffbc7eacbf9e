package auth

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProcessGone(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p, err := OpenProcess(cmd.Process.Pid)
	require.NoError(t, err)
	q := p.Ref()
	p.Unref()

	select {
	case <-q.Gone():
		t.Fatal("gone while it runs")
	default:
	}
	require.NoError(t, in.Close())
	<-q.Gone() // before Wait: a zombie has exited already
	require.NoError(t, cmd.Wait())
	q.Unref()
}

func TestProcessUnrefEndsWatcher(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p, err := OpenProcess(cmd.Process.Pid)
	require.NoError(t, err)
	gone := p.Gone()
	p.Unref() // goleak sees the watcher if it stays
	select {
	case <-gone:
		t.Fatal("a released process is not a dead one")
	default:
	}
	require.Panics(t, func() { p.Unref() })
	require.Panics(t, func() { p.Ref() })
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
}

func TestNilProcess(t *testing.T) {
	var p *Process
	require.Nil(t, p.Ref())
	require.Nil(t, p.Gone())
	p.Unref()
	_, err := OpenProcess(1 << 30)
	require.ErrorContains(t, err, "1073741824")
}
